"""Sequential bias correction: cancel the mean error that quantization leaves in each channel.

For each weighted node in topological order, with everything before it quantized and corrected,
δ = E[y_float − y_int8] over samples and positions is added to the bias (Nagel et al., 2019, §4.2,
with measured means). A layer is corrected only if that lowers its error on samples that δ was
not measured on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.operators import weight_layout
from onnxq.model.weights import WeightLayout
from onnxq.progress import SILENT, Progress
from onnxq.quantization.insert import insert
from onnxq.quantization.plan import QuantizationPlan
from onnxq.quantization.segments import SegmentRunner

Array = NDArray[Any]


@dataclass(frozen=True)
class BiasCorrection:
    """What was done to one layer: its mean squared error before and after, held-out samples."""

    node: str
    accepted: bool
    error_before: float
    error_after: float


def correct_biases(
    model: Model,
    plan: QuantizationPlan,
    batches: Sequence[Mapping[str, Array]],
    *,
    weights: Mapping[str, NDArray[np.int8]] | None = None,
    progress: Progress = SILENT,
) -> tuple[dict[str, NDArray[np.float32]], tuple[BiasCorrection, ...]]:
    """Measure and correct, layer by layer.

    Args:
        model: the float model the plan was made for.
        batches: samples, all in memory; half of them measure, the other half decide.

    Returns:
        Node → new float bias (outputs,), and a record of every layer.
    """
    graph = Graph(model)
    exact = SegmentRunner(model, batches)
    quantized = SegmentRunner(insert(model, plan, weights=weights, integer_bias=False), batches)
    biases: dict[str, NDArray[np.float32]] = {}
    records = []
    nodes = [node for node in graph.nodes if node.name in plan.weights]
    with progress.track("correct biases", len(nodes)) as advance:
        for node in nodes:
            layout = weight_layout(graph, node)
            assert isinstance(layout, WeightLayout)  # noqa: S101 - the plan holds such nodes only
            wanted, got = exact.compute(node.output), quantized.compute(node.output)
            advance(1)
            bias = graph.constant(layout.bias) if layout.bias else np.zeros((), np.float32)
            vector = None if bias is None else layout.bias_vector(bias)
            if vector is None or not layout.takes_bias:
                continue
            errors = [a - b for a, b in zip(wanted, got, strict=True)]
            shift, record = _measure(node.name, errors, layout.output_axis)
            records.append(record)
            if record.accepted:
                biases[node.name] = (vector + shift).astype(np.float32)
                step = _along(shift, got[0].ndim, layout.output_axis)
                quantized.replace(node.output, [values + step for values in got])
    return biases, tuple(records)


def _along(values: Array, rank: int, axis: int) -> Array:
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape).astype(np.float32)


def _measure(
    name: str, errors: Sequence[Array], axis: int
) -> tuple[NDArray[np.float64], BiasCorrection]:
    error = np.concatenate(errors)
    others = tuple(a for a in range(error.ndim) if a != axis % error.ndim)
    shift: NDArray[np.float64] = error.mean(axis=others, dtype=np.float64)
    if len(error) < 2:
        return shift, BiasCorrection(name, True, 0.0, 0.0)
    from_even = error[::2].mean(axis=others, dtype=np.float64)
    held_out = error[1::2]
    before = float(np.square(held_out, dtype=np.float64).mean())
    after = float(np.square(held_out - _along(from_even, error.ndim, axis)).mean())
    return shift, BiasCorrection(name, after < before, before, after)
