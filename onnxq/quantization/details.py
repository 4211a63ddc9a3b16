"""Quantization details: what a QDQ model says of itself, whoever wrote it.

The graph is the truth: which weights are stored in which format, which activations have Q/DQ. A
model written by onnxq carries besides, in its metadata, the target, the folded batch norms, the
fused activations and the reason for every node left in float.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import onnxq
from onnxq.calibration.statistics import Calibration
from onnxq.errors import ModelError
from onnxq.formats.table import UNSTATED
from onnxq.model.already import quantized_operators
from onnxq.model.dynamic import quantized_by_run, with_dequantized
from onnxq.model.graph import Node
from onnxq.model.model import Model
from onnxq.model.modernize import inline_functions
from onnxq.model.normalize import FOLDS, name_nodes
from onnxq.model.operators import data_of, is_product, is_weighted, operator_of, weight_layout
from onnxq.model.qdq import (
    QdqGraph,
    Quantization,
    quantized_activations,
    standing_for,
    stored_weight,
)
from onnxq.model.status import Float, Quantized
from onnxq.model.weights import WeightLayout
from onnxq.records import to_plain
from onnxq.refusal import Refusal

if TYPE_CHECKING:
    from onnxq.quantization.request import QuantizationResult

METADATA_KEY = "onnxq.quantization"

SQNR = "quantized_sqnr_db"
"""Key of the SQNR when the model was made, on the samples that `MEASURED_ON` tells of."""

MEASURED_ON = "measured_on"

BY_RUN = "per tensor, by run"
"""What shares a scale where it is that of each run."""

_RENAMED: Mapping[str, str] = MappingProxyType({"int8_sqnr_db": SQNR})
"""Keys of records of version 1 → what they are called today."""


@dataclass(frozen=True)
class Learnable:
    """One row of the learnables' table: a layer's "Weights" or "Bias" as they are stored.

    Attributes:
        format: name of the number format, or of the float type.
        granularity: what shares a scale; "" for floats.
    """

    layer: str
    parameter: str
    format: str
    shape: tuple[int, ...]
    granularity: str = ""

    @property
    def value(self) -> str:
        """Such as "int8 64×3×3×3"."""
        return f"{self.format} {'×'.join(map(str, self.shape)) or 'scalar'}"


@dataclass(frozen=True)
class Activation:
    """A tensor with Q/DQ: its format, what shares a scale, and scale and zero point if one does."""

    tensor: str
    format: str
    granularity: str
    scale: float | None
    zero_point: int | None


@dataclass(frozen=True)
class Details:
    """The details.

    Attributes:
        is_quantized: whether any weight is stored in a quantized format, or any operator computes
            on such numbers.
        target: as recorded; "" where another tool wrote the model.
        layers: names of the quantized layers, with folded batch norms and fused activations.
        learnables: weights and biases of the quantized layers.
        activations: tensors with Q/DQ, in the order in which they are quantized.
        float_nodes: node → why it stays in float; all nodes of a float model.
        operators: node → its operator; nodes without a name have the one that `quantize` gives.
        record: everything onnxq wrote into the model, {} for another tool's.
    """

    is_quantized: bool
    target: str
    layers: tuple[str, ...]
    learnables: tuple[Learnable, ...]
    activations: tuple[Activation, ...]
    float_nodes: dict[str, str]
    operators: dict[str, str]
    record: dict[str, Any]


def details_json(
    result: QuantizationResult, calibration: Calibration | None, settings: Mapping[str, Any]
) -> str:
    """The metadata entry that `details` reads back; the settings are the command's options."""
    plan = result.plan
    equalization = result.equalization
    entry = {
        "version": 2,
        "onnxq": onnxq.__version__,
        "target": plan.target.name,
        "scheme": plan.scheme.name,
        "options": plan.options,
        "settings": settings,
        **result.normalization.folds,
        "fused": {
            name: status.fused_into
            for name, status in plan.nodes.items()
            if isinstance(status, Quantized) and status.fused_into
        },
        "float": {
            name: status.reason for name, status in plan.nodes.items() if isinstance(status, Float)
        },
        "equalization": None
        if equalization is None
        else {
            "relu6": equalization.options.relu6,
            "scaled_channels": sum(record.scaled for record in equalization.classes),
            "identical": equalization.proof.identical,
            "float_change_db": result.float_sqnr,
            "kernels_added": equalization.kernels_added,
            "rolled_back": equalization.rolled_back,
            "expected_gain_db": equalization.expected_gain,
            "classes": equalization.classes,
            "barriers": equalization.barriers,
            "clips": equalization.clips,
        },
        "centered_activations": len(result.centering.shifts) if result.centering else 0,
        "not_centered": result.centering.refused if result.centering else {},
        SQNR: result.quantized_sqnr,
        MEASURED_ON: result.measured_on,
        "ranges": [each for each in result.ranges if not each.is_usual],
        "uneven_scales": result.uneven,
        "weights_rounded_adaptively": sum(record.adaptive for record in result.roundings),
        "biases_corrected": sum(record.accepted for record in result.corrections),
        **({} if result.mixed is None else {"mixed": result.mixed}),
        "search": result.search,
        "calibration": calibration
        and {
            "samples": calibration.samples,
            "data": calibration.data,
            "note": calibration.note,
            "preprocessing": calibration.provenance.preprocessing,
            "model": calibration.provenance.model,
        },
    }
    plain = to_plain(entry)
    return json.dumps({**plain, "digest": _digest(plain)}, sort_keys=True)


def details(model: Model) -> Details:
    """Read the details of any model, quantized or not."""
    quantized, record = bool(quantized_operators(model)), _record(model)
    named = _named(model, inline=not quantized)
    graph = QdqGraph(with_dequantized(named) if quantized else named)
    weights = {node.name: weight for node in graph.nodes if (weight := _weight(graph, node))}
    learnables: list[Learnable] = []
    layers: list[str] = []
    inside: dict[str, list[str]] = {}
    for kind in (*FOLDS, "fused"):
        for name, host in record.get(kind, {}).items():
            inside.setdefault(host, []).append(name)
    for node in graph.nodes:
        learnables += (others := list(_stored_in(graph, node)))
        layers += [node.name] * bool(others)
        if node.name in weights:
            layers += [node.name, *inside.get(node.name, [])]
            learnables += _learnables(graph, node, weights[node.name])
    float_nodes = dict(record.get("float", {}))
    if not record:
        float_nodes = {
            node.name: _why_float(graph, node, quantized=quantized)
            for node in graph.nodes
            if not quantized or (is_weighted(node) and node.name not in weights)
            if not _product_of_integers(graph, node)
        }
    operators = {node.name: node.op_type for node in graph.nodes}
    return Details(
        quantized or bool(learnables), record.get("target", ""), tuple(layers), tuple(learnables),
        (*map(_activation, quantized_activations(graph).values()),
         *map(_by_run, quantized_by_run(graph))),
        float_nodes, operators, record,
    )  # fmt: skip


def _product_of_integers(graph: QdqGraph, node: Node) -> bool:
    """Whether it multiplies two activations that are quantized."""
    operands = [standing_for(graph, name) for name in data_of(graph, node)]
    return is_product(graph, node) and all(isinstance(each, Quantization) for each in operands)


def _named(model: Model, *, inline: bool) -> Model:
    """The model with a name of its own for each node, those of its functions too if `inline`."""
    with contextlib.suppress(ModelError):  # What cannot be quantized can be looked at.
        model = inline_functions(model)[0] if inline else model
    return name_nodes(model)[0]


def _why_float(graph: QdqGraph, node: Node, *, quantized: bool) -> str:
    """Why a node whose weight is not stored in a quantized format is float."""
    layout = weight_layout(graph, node)
    if not quantized and isinstance(layout, Refusal):
        return layout.reason
    return "its weight is float"


def recorded_preprocessing(model: Model) -> str:
    """Canonical text of the preprocessing the model was calibrated with; "" where unknown."""
    calibration = _record(model).get("calibration")
    text = calibration.get("preprocessing") if isinstance(calibration, dict) else ""
    return text if isinstance(text, str) else ""


def _record(model: Model) -> dict[str, Any]:
    try:
        entry = json.loads(model.metadata.get(METADATA_KEY, "{}"))
    except ValueError:
        return {}
    # One that was edited or damaged says nothing that can be relied on.
    if not isinstance(entry, dict) or entry.pop("digest", "") != _digest(entry):
        return {}
    return {_RENAMED.get(key, key): value for key, value in entry.items()}


def _digest(entry: Mapping[str, Any]) -> str:
    """Of a record as JSON gives it back."""
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()[:16]


def _weight(graph: QdqGraph, node: Node) -> tuple[WeightLayout, Quantization] | None:
    """The stored weight of a node; None where it is float or the node has none."""
    layout = weight_layout(graph, node)
    if isinstance(layout, Refusal):
        return None
    found = stored_weight(graph, layout.weight)
    return None if isinstance(found, Refusal) else (layout, found)


def _learnables(
    graph: QdqGraph, node: Node, weight: tuple[WeightLayout, Quantization]
) -> Iterator[Learnable]:
    layout, stored = weight
    yield _stored(graph, node, "Weights", stored)
    bias = stored_weight(graph, layout.bias) if layout.bias else None
    if isinstance(bias, Quantization):
        yield _stored(graph, node, "Bias", bias)
    elif layout.bias and (value := graph.constant(layout.bias)) is not None:
        yield Learnable(node.name, "Bias", str(value.dtype), value.shape)


def _stored_in(graph: QdqGraph, node: Node) -> Iterator[Learnable]:
    """Weights of an operator that computes in float with stored ones."""
    row = operator_of(node)
    for role, position in row.stores if row is not None else ():
        found = stored_weight(graph, node.input(position))
        if isinstance(found, Quantization):
            yield _stored(graph, node, role, found)


def _stored(graph: QdqGraph, node: Node, parameter: str, found: Quantization) -> Learnable:
    shape = graph.value(found.stored).shape
    granularity = str(found.parameters.granularity)
    return Learnable(node.name, parameter, found.format.name, shape, granularity)


def _by_run(tensor: str) -> Activation:
    return Activation(tensor, UNSTATED.name, BY_RUN, None, None)


def _activation(found: Quantization) -> Activation:
    parameters, one = found.parameters, found.parameters.per_tensor
    return Activation(
        found.real, found.format.name, str(parameters.granularity),
        float(parameters.scale) if one else None, int(parameters.zero_point) if one else None,
    )  # fmt: skip
