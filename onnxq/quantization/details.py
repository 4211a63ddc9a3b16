"""Quantization details: what a QDQ model says of itself, whoever wrote it.

The graph is the truth: which weights are integers, which activations have Q/DQ. A model written
by onnxq carries besides, in its metadata, the target, the folded batch norms, the fused activations
and the reason for every node left in float.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx

import onnxq
from onnxq.calibration.statistics import Calibration
from onnxq.model.graph import Graph, Node
from onnxq.model.model import Model
from onnxq.model.normalize import FOLDS
from onnxq.model.operators import DEQUANTIZE, Int8Rule, operator_of
from onnxq.quantization.plan import Float
from onnxq.records import to_plain

if TYPE_CHECKING:
    from onnxq.quantization.quantize import QuantizationResult

METADATA_KEY = "onnxq.quantization"


@dataclass(frozen=True)
class Learnable:
    """One row of the learnables' table: layer, "Weights" or "Bias", and like "int8 64×3×3×3"."""

    layer: str
    parameter: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def value(self) -> str:
        return f"{self.dtype} {'×'.join(map(str, self.shape)) or 'scalar'}"


@dataclass(frozen=True)
class Details:
    """The details.

    Attributes:
        is_quantized: whether any weight is an integer.
        target: as recorded; "" where another tool wrote the model.
        layers: names of the quantized layers, with folded batch norms and fused activations.
        learnables: weights and biases of the quantized layers.
        float_nodes: node → why it stays in float.
        record: everything onnxq wrote into the model, {} for another tool's.
    """

    is_quantized: bool
    target: str
    layers: tuple[str, ...]
    learnables: tuple[Learnable, ...]
    float_nodes: dict[str, str]
    record: dict[str, Any]


def details_json(result: QuantizationResult, calibration: Calibration) -> str:
    """The metadata entry that `details` reads back."""
    plan = result.plan
    equalization = result.equalization
    entry = {
        "version": 1,
        "onnxq": onnxq.__version__,
        "target": plan.target.name,
        "options": plan.options,
        **result.normalization.folds,
        "fused": {
            name: status.fused_into
            for name, status in plan.nodes.items()
            if not isinstance(status, Float) and status.fused_into
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
        "int8_sqnr_db": result.int8_sqnr,
        "weights_rounded_adaptively": sum(record.adaptive for record in result.roundings),
        "biases_corrected": sum(record.accepted for record in result.corrections),
        "search": result.search,
        "calibration": {
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
    graph = Graph(model)
    record = _record(model)
    quantized = [node for node in graph.nodes if _integer_weight(graph, node) is not None]
    learnables: list[Learnable] = []
    layers: list[str] = []
    inside: dict[str, list[str]] = {}
    for kind in (*FOLDS, "fused"):
        for name, host in record.get(kind, {}).items():
            inside.setdefault(host, []).append(name)
    for node in quantized:
        layers.append(node.name)
        layers += inside.get(node.name, [])
        learnables += _learnables(graph, node)
    float_nodes = dict(record.get("float", {}))
    if not record:
        float_nodes = {
            node.name: "its weight is float"
            for node in graph.nodes
            if _is_weighted(node) and _integer_weight(graph, node) is None
        }
    return Details(
        bool(quantized), record.get("target", ""), tuple(layers), tuple(learnables), float_nodes,
        record,
    )  # fmt: skip


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
    return entry if isinstance(entry, dict) and entry.pop("digest", "") == _digest(entry) else {}


def _digest(entry: Mapping[str, Any]) -> str:
    """Of a record as JSON gives it back."""
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()[:16]


def _is_weighted(node: Node) -> bool:
    row = operator_of(node)
    return row is not None and row.int8 is Int8Rule.WEIGHTED


def _integer_source(graph: Graph, name: str) -> str | None:
    """The integer initializer behind a DequantizeLinear; None for anything else."""
    producer = graph.producers.get(name)
    if producer is None or producer.op_type != DEQUANTIZE:
        return None
    source = producer.input(0)
    return source if graph.is_constant(source) else None


def _integer_weight(graph: Graph, node: Node) -> str | None:
    return _integer_source(graph, node.input(1)) if _is_weighted(node) else None


def _learnables(graph: Graph, node: Node) -> list[Learnable]:
    rows = []
    for position, parameter in ((1, "Weights"), (2, "Bias")):
        name = node.input(position)
        stored = _integer_source(graph, name) or (name if graph.is_constant(name) else None)
        if not stored:
            continue
        dtype = onnx.helper.tensor_dtype_to_np_dtype(graph.elem_type(stored))
        shape = tuple(size for size in graph.shape(stored) or () if isinstance(size, int))
        rows.append(Learnable(node.name, parameter, str(dtype), shape))
    return rows
