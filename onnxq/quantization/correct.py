"""Sequential bias correction: cancel the mean error that quantization leaves in each channel.

For each weighted node in topological order, with everything before it quantized and corrected,
δ = E[y_float − y_int8] over samples and positions is added to the bias (Nagel et al., 2019, §4.2,
with measured means). A channel is corrected only if that lowers its error, behind the activation
fused to the node, on samples that δ was not measured on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.model.biases import bias_site
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.operators import fused_bounds, weight_layout
from onnxq.model.weights import WeightLayout
from onnxq.progress import SILENT, Progress
from onnxq.quantization.insert import insert
from onnxq.quantization.plan import QuantizationPlan
from onnxq.quantization.segments import SegmentRunner

Array = NDArray[Any]


@dataclass(frozen=True)
class BiasCorrection:
    """What was done to one layer: its mean squared error before and after, on held-out samples."""

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
        Weighted node → new value of its `bias_site`, and a record of every layer that has one.
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
            site = bias_site(graph, node, layout)
            advance(1)
            if isinstance(site, str):
                continue
            wanted, got = exact.compute(site.output), quantized.compute(site.output)
            shift, record = _measure(
                node.name, np.concatenate(wanted), np.concatenate(got), layout.output_axis,
                fused_bounds(graph, graph.by_name[site.node]),
            )  # fmt: skip
            records.append(record)
            if record.accepted:
                biases[node.name] = (site.value + shift).astype(np.float32)
                step = _along(shift, got[0].ndim, layout.output_axis)
                quantized.replace(site.output, [values + step for values in got])
    return biases, tuple(records)


def _along(values: Array, rank: int, axis: int) -> Array:
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape).astype(np.float32)


def _measure(
    name: str, wanted: Array, got: Array, axis: int, bounds: tuple[float, float]
) -> tuple[NDArray[np.float64], BiasCorrection]:
    """The shift of each channel, and whether it helps behind the activation that follows."""
    error = wanted - got
    others = tuple(a for a in range(error.ndim) if a != axis % error.ndim)
    shift: NDArray[np.float64] = error.mean(axis=others, dtype=np.float64)
    if len(error) < 2:
        return shift, BiasCorrection(name, False, math.nan, math.nan)
    trial = got[1::2] + _along(error[::2].mean(axis=others), error.ndim, axis)
    exact = np.clip(wanted[1::2], *bounds)
    before = np.square(exact - np.clip(got[1::2], *bounds)).mean(axis=others, dtype=np.float64)
    after = np.square(exact - np.clip(trial, *bounds)).mean(axis=others, dtype=np.float64)
    helps = after < before
    kept = np.where(helps, after, before)
    return np.where(helps, shift, 0.0), BiasCorrection(
        name, bool(helps.any()), float(before.mean()), float(kept.mean())
    )
