"""What quantization came to: size, share of the arithmetic in integers, speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnxq.model.graph import Graph, Node
from onnxq.model.model import Model
from onnxq.model.operators import has_weight, is_product, weight_layout
from onnxq.model.status import Quantized
from onnxq.model.weights import WeightLayout
from onnxq.quantization.plan import QuantizationPlan

SMALL_SIDE = 16
"""Side of a product of matrices below which TensorRT's integer kernels bring nothing."""

MATTERS = 0.01
"""Share of the multiply-adds above which it is said where they do not pay."""


@dataclass(frozen=True)
class Speed:
    """A run of the float and of the quantized model on one core: CPU time, milliseconds.

    Attributes:
        samples: of a run.
        ratio: quantized by float.
    """

    samples: int
    float_ms: float
    quantized_ms: float
    ratio: float


@dataclass(frozen=True)
class Account:
    """What a user wants to know in the end.

    Attributes:
        float_size, size: of the models, bytes.
        layers, quantized_layers: nodes with a weight, and those whose weight is quantized.
        multiply_adds, integer_multiply_adds: of one run, all and those on integers; 0 where they
            could not be counted.
        speed: on this machine; None where it was not measured.
        cautions: where it will not pay, and what would.
    """

    float_size: int
    size: int
    layers: int
    quantized_layers: int
    multiply_adds: int
    integer_multiply_adds: int
    speed: Speed | None = None
    cautions: tuple[str, ...] = ()

    @property
    def ratio(self) -> float:
        """How many times smaller the quantized model is."""
        return self.float_size / max(self.size, 1)

    @property
    def integer_share(self) -> float | None:
        """Share of the multiply-adds on integers, %; None where they are not known."""
        if not self.multiply_adds:
            return None
        return 100 * self.integer_multiply_adds / self.multiply_adds


def account_of(
    model: Model,
    prepared: Model,
    quantized: Model,
    plan: QuantizationPlan,
    products: Mapping[str, int],
) -> Account:
    """What a quantized model came to.

    Args:
        model: as it was given.
        prepared: the float model that the plan is for.
        products: node → multiply-adds.
    """
    graph = Graph(prepared)
    layers = {node.name for node in graph.nodes if has_weight(graph, node)}
    return Account(
        model.size,
        quantized.size,
        len(layers),
        len(layers & plan.weighted),
        sum(products.values()),
        sum(count for name, count in products.items() if _on_integers(plan, name)),
    )


def _on_integers(plan: QuantizationPlan, name: str) -> bool:
    status = plan.nodes.get(name)
    return isinstance(status, Quantized) and status.scheme.activation is not None


def costs_on_tensor_cores(
    prepared: Model, plan: QuantizationPlan, products: Mapping[str, int]
) -> tuple[str, ...]:
    """What is quantized and slower so on a GPU, each in a line; what hardly counts is left out."""
    graph, whole = Graph(prepared), sum(products.values())

    def counts(nodes: list[Node]) -> bool:
        return sum(products.get(node.name, 0) for node in nodes) > MATTERS * whole

    nodes = [node for node in graph.nodes if _on_integers(plan, node.name)]
    attention = [node for node in nodes if is_product(graph, node)]
    small = [node for node in nodes if _is_small(graph, node)]
    found = []
    if counts(attention):
        found.append(
            f"products of activations in integers: {len(attention):,}; on TensorRT attention is "
            "slower so, a target whose products are [] leaves them in float"
        )
    if counts(small):
        found.append(
            f"products of matrices with a side below {SMALL_SIDE} in integers: {len(small):,}; "
            "they gain nothing on TensorRT, --exclude leaves them in float"
        )
    return tuple(found)


def _is_small(graph: Graph, node: Node) -> bool:
    layout = weight_layout(graph, node)
    if not isinstance(layout, WeightLayout) or not layout.is_matrix:
        return False
    return min(layout.inputs, layout.outputs) < SMALL_SIDE
