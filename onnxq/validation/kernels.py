"""Which nodes of a QDQ model a runtime runs in integers, and why others not.

Counted in the graph it really runs. Of ONNX Runtime's CPU provider that is the one after its
optimizations but those of the memory layout, which rename nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from onnxq.emulation.agreement import INTEGER_KERNELS
from onnxq.emulation.layers import Fused
from onnxq.emulation.plan import plan_emulation
from onnxq.model.dynamic import with_dequantized
from onnxq.model.graph import Node
from onnxq.model.model import Model
from onnxq.model.normalize import normalize
from onnxq.model.operators import (
    IntegerForm,
    Operator,
    QuantizedRule,
    has_weight,
    is_quantize,
    operator_of,
    stands_for,
)
from onnxq.model.qdq import QdqGraph
from onnxq.model.session import open_session, with_graph
from onnxq.model.status import Float
from onnxq.validation.runtimes import RUNTIMES, ran_in
from onnxq.validation.runtimes.ran import Ran

CPU = "cpu"

COUNTED = (CPU, *RUNTIMES)
"""Executions that tell their kernels."""

_COMPUTING = frozenset({QuantizedRule.WEIGHTED, QuantizedRule.OWN})


@dataclass(frozen=True)
class Kernel:
    """What a runtime makes of a node that has an integer kernel.

    Attributes:
        kernel: the operator it runs; "" where the node went into another.
        integer: whether that is one on integers.
        reason: why not; "" where it is.
        weighted: whether the node multiplies by a weight.
    """

    node: str
    op_type: str
    kernel: str
    integer: bool
    reason: str
    weighted: bool = False


@dataclass(frozen=True)
class RuntimeKernels:
    """What a runtime that was asked for makes of a model.

    Attributes:
        model: its name.
        execution: the runtime, by the name of its execution.
    """

    model: str
    execution: str
    kernels: tuple[Kernel, ...]


def kernels_of(models: Sequence[Model], executions: Sequence[str]) -> tuple[RuntimeKernels, ...]:
    """Of all models, in those of the executions that are runtimes of their own."""
    return tuple(
        RuntimeKernels(model.name, name, kernels(model, name))
        for model in models
        for name in executions
        if name in RUNTIMES
    )


def kernels(model: Model, runtime: str = CPU) -> tuple[Kernel, ...]:
    """The nodes that could run in integers (weighted, pooling, Add, …), in order.

    Args:
        runtime: an execution of `onnxq validate` that tells its kernels: `COUNTED`.

    Raises:
        ModelError: the runtime refuses the model.
        UsageError, ProviderError: it is not installed.
    """
    source, _ = normalize(model)
    written = QdqGraph(source)
    graph = QdqGraph(with_dequantized(source))
    ran = _on_cpu(source) if runtime == CPU else ran_in(source, runtime)
    plan = plan_emulation(written)
    found = []
    for node in graph.nodes:
        row, status = operator_of(node), plan.get(node.name)
        there = written.by_name.get(node.name)
        whole = there is not None and stands_for(there) is not None
        if row is None or not (whole or _could_be_integer(row)):
            continue
        if status is None or isinstance(status, Fused):
            continue
        kernel = ran.get(node.name, Ran("", integer=False))
        reason = ""
        if not kernel.integer:
            reason = _reason(graph, node, status, runtime)
        found.append(
            Kernel(
                node.name, node.op_type, kernel.kernel, kernel.integer, reason,
                has_weight(graph, node),
            )
        )  # fmt: skip
    return tuple(found)


def _could_be_integer(row: Operator) -> bool:
    return row.quantized in _COMPUTING and row.integer_form is not IntegerForm.NONE


def _on_cpu(model: Model) -> dict[str, Ran]:
    _, optimized = with_graph(partial(open_session, model, layout=False))
    return {
        node.name: Ran(node.op_type, node.op_type.startswith(INTEGER_KERNELS))
        for node in optimized.graph.node
    }


def _reason(graph: QdqGraph, node: Node, status: object, runtime: str) -> str:
    """Why a runtime did not take a node, the emulator's reason if that does not either."""
    if isinstance(status, Float):
        return status.reason
    if runtime != CPU:
        return f"{RUNTIMES[runtime]} computes it in float, or leaves it to another device"
    return _reason_of_cpu(graph, node)


def _reason_of_cpu(graph: QdqGraph, node: Node) -> str:
    """Why ONNX Runtime did not take a node that the emulator computes in integers."""
    uses = graph.consumers(node.output)
    if graph.is_exposed(node.output) or not all(is_quantize(use.node) for use in uses):
        return f"its result is not quantized, as {node.op_type}'s integer kernel needs"
    return "ONNX Runtime has no integer kernel for these types and attributes"
