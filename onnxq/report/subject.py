"""One model as the reports look at it: its float graph, and what becomes of each node.

Of a quantized model the float graph is that of it without Q/DQ, so that nodes and
neighbors read as in the model it was made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.equalization.classes import find_classes
from onnxq.equalization.sites import Barrier, ScaleClasses
from onnxq.errors import UsageError
from onnxq.formats.parameters import Parameters
from onnxq.model.already import quantized_operators
from onnxq.model.channel_scales import recorded_exponents, recorded_offsets
from onnxq.model.dynamic import quantized_by_run, with_dequantized
from onnxq.model.graph import Graph, Node, Place
from onnxq.model.model import Model
from onnxq.model.normalize import Normalization, normalize
from onnxq.model.operators import (
    data_of,
    is_dequantize,
    is_of_quantized_models,
    is_quantize,
    is_weighted,
    operator_of,
    weight_layout,
)
from onnxq.model.qdq import quantized_activations, stored_weight
from onnxq.model.status import Float
from onnxq.model.weights import WeightLayout
from onnxq.quantization.details import Details, details
from onnxq.quantization.plan import QuantizationPlan
from onnxq.refusal import Refusal
from onnxq.suggest import suggest
from onnxq.validation.without_qdq import without_qdq


@dataclass(frozen=True)
class Status:
    """What becomes of a node: "quantized", "fused", "float" or "undecided", and why."""

    becomes: str
    reason: str = ""


QUANTIZED, FUSED, FLOAT, UNDECIDED = "quantized", "fused", "float", "undecided"


@dataclass(frozen=True)
class Subject:
    """A model to report on.

    Attributes:
        model: as it was given.
        graph: its normalized float graph.
        quantized: its normalized graph with Q/DQ; None for a float model.
        normalization: batch norms folded.
        details: what the model says of itself.
        plan: what `quantize` would do to a float model; None where nobody asked.
    """

    model: Model
    graph: Graph
    quantized: Graph | None
    normalization: Normalization
    details: Details
    plan: QuantizationPlan | None = None

    @cached_property
    def classes(self) -> ScaleClasses:
        return find_classes(self.graph)

    @cached_property
    def scale_paths(self) -> Mapping[str, tuple[tuple[Barrier, ...], tuple[tuple[str, ...], ...]]]:
        """Tensor → the barriers at it, and the tensors that its scales reach through each node.

        Scales spread through every node that neither has a weight nor is a barrier itself.
        """
        graph = self.graph
        ends = {
            node.index: tuple(sorted({*self.data_of(node), *node.outputs} - {""}))
            for node in graph.nodes
            if self.layout(node) is None
        }
        around: dict[str, dict[int, Node]] = {}
        for node in graph.nodes:
            for name in filter(None, node.inputs):
                around.setdefault(name, {})[node.index] = node
        for name, node in graph.producers.items():
            around.setdefault(name, {})[node.index] = node
        stops: dict[str, list[Barrier]] = {}
        for each in self.classes.barriers:
            stops.setdefault(each.tensor, []).append(each)
        found = {}
        for name, nodes in around.items():
            here = tuple(stops.get(name, ()))
            blocked = {each.node for each in here}
            ways = (ends[i] for i, n in nodes.items() if i in ends and n.name not in blocked)
            found[name] = here, tuple(ways)
        return found

    @cached_property
    def exponents(self) -> Mapping[str, NDArray[np.float64]]:
        """Tensor → log₂ of the scales that equalization gave its channels."""
        return recorded_exponents(self.model)

    @cached_property
    def offsets(self) -> Mapping[str, NDArray[np.float64]]:
        """Tensor → what was subtracted to center it."""
        return recorded_offsets(self.model)

    @property
    def record(self) -> Mapping[str, Any]:
        return self.details.record

    @cached_property
    def folded(self) -> Mapping[str, str]:
        """Node that is gone → node that took it up."""
        found: dict[str, str] = {}
        for kind, hosts in self.normalization.folds.items():
            found |= {**hosts, **self.record.get(kind, {})}
        return found

    def layout(self, node: Node) -> WeightLayout | None:
        """How the node stores its weight; None for nodes without one."""
        found = weight_layout(self.graph, node)
        return found if isinstance(found, WeightLayout) else None

    def data_of(self, node: Node) -> tuple[str, ...]:
        """The activations that the node reads."""
        row = operator_of(node)
        names = node.inputs if row is None else data_of(self.graph, node)
        return tuple(name for name in names if name and self.graph.constant(name) is None)

    @cached_property
    def activations(self) -> Mapping[str, Parameters]:
        """Activation → how it is stored, of those quantized with one scale."""
        if self.plan is not None:
            return {name: entry.parameters for name, entry in self.plan.static.items()}
        if self.quantized is None:
            return {}
        found = quantized_activations(self.quantized)
        return {n: each.parameters for n, each in found.items() if each.parameters.per_tensor}

    @cached_property
    def by_run(self) -> frozenset[str]:
        """Activations that are quantized by the range that they have in each run."""
        if self.plan is not None:
            return frozenset(self.plan.activations) - frozenset(self.plan.static)
        return (
            frozenset() if self.quantized is None else frozenset(quantized_by_run(self.quantized))
        )

    def weight(self, node: Node) -> Parameters | None:
        """How the node's weight is stored; None where it is float."""
        layout = self.layout(node)
        if layout is None:
            return None
        if self.plan is not None:
            return self.plan.weights.get(Place(node.name, layout.weight_position))
        there = self.quantized.by_name.get(node.name) if self.quantized else None
        if self.quantized is None or there is None:
            return None
        found = stored_weight(self.quantized, there.input(layout.weight_position))
        return None if isinstance(found, Refusal) else found.parameters

    def status(self, node: Node) -> Status:
        """What becomes of the node, and why."""
        if self.plan is not None:
            decided = self.plan.nodes[node.name]
            if isinstance(decided, Float):
                return Status(FLOAT, decided.reason)
            host = decided.fused_into
            return Status(FUSED, f"into {host}") if host else Status(QUANTIZED)
        if self.quantized is None:
            return Status(UNDECIDED, "the model is float")
        if node.name in self.record.get("fused", {}):
            return Status(FUSED, f"into {self.record['fused'][node.name]}")
        if node.name in self.details.float_nodes:
            return Status(FLOAT, self.details.float_nodes[node.name])
        if is_of_quantized_models(node.op_type):
            return Status(QUANTIZED, "the operator itself reads stored numbers")
        return Status(QUANTIZED) if self.record else self._seen(self.quantized, node)

    @cached_property
    def fused(self) -> Mapping[str, list[str]]:
        """Node → those that are fused into it."""
        found: dict[str, list[str]] = {}
        for node in self.graph.nodes:
            status = self.status(node)
            if status.becomes == FUSED:
                found.setdefault(status.reason.removeprefix("into "), []).append(node.name)
        return found

    def _seen(self, graph: Graph, node: Node) -> Status:
        """The same of a model without a record: what its graph with Q/DQ shows."""
        row = operator_of(node)
        there = graph.by_name.get(node.name)
        if there is None:
            return Status(FLOAT, "it is not in the quantized graph")
        reads = [graph.producers.get(name) for name in there.inputs if name]
        if is_weighted(node) and self.weight(node) is not None:
            return Status(QUANTIZED)
        if any(source is not None and is_dequantize(source) for source in reads):
            return Status(QUANTIZED, "it reads dequantized values")
        before = reads[0] if reads else None
        if row is not None and row.fuses and before and not is_of_quantized_models(before.op_type):
            return Status(FUSED, f"into {before.name}")
        return Status(FLOAT, "no Q/DQ before it")

    def find(self, name: str) -> Node:
        """The node of this name, or the one that took it up, or that computes this tensor.

        Raises:
            UsageError: there is none; the hint names the nearest.
        """
        for candidate in (name, self.folded.get(name, "")):
            if candidate in self.graph.by_name:
                return self.graph.by_name[candidate]
        if name in self.graph.producers:
            return self.graph.producers[name]
        known = [*self.graph.by_name, *self.folded, *self.graph.producers]
        near = suggest(name, known) or suggest(name.lower(), {each.lower() for each in known})
        raise UsageError(
            f"{self.model.name} has no node {name!r}",
            hint=near or "onnxq report and onnxq quantize --dry-run list their names",
        )


def look_at(model: Model, plan: QuantizationPlan | None = None) -> Subject:
    """Look at a model, quantized or not.

    Args:
        plan: what `quantize` would do to it, of a float model.

    Raises:
        ModelError: it cannot be normalized.
    """
    normalized, normalization = normalize(model)
    normalized = with_dequantized(normalized)
    graph = Graph(normalized)
    if any(is_quantize(node) or is_dequantize(node) for node in graph.nodes):
        stripped = Graph(without_qdq(normalized))
        return Subject(model, stripped, graph, normalization, details(model))
    # Some operators, as MatMulNBits, hold all that others need Q/DQ for.
    quantized = graph if quantized_operators(model) else None
    return Subject(model, graph, quantized, normalization, details(model), plan)
