"""What errors count at each position of a layer, by the gradients of the outputs there.

Of a sentence some tokens decide on its embedding and others hardly matter; a weight is rounded for
those that do. A gradient is a tangent and says too much of a few positions, so what it says is
bounded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.statistics import Calibration
from onnxq.data.tokens import Tokens
from onnxq.errors import ModelError, ResourceError
from onnxq.gradients import bytes_in_sample, power_by_position
from onnxq.model.backward import sized_by_values
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.operators import weight_layout
from onnxq.progress import Progress
from onnxq.quantization.plan import QuantizationPlan
from onnxq.refusal import Refusal

Importance = Mapping[str, Sequence[NDArray[np.float32]]]
"""Output of a layer → of each batch (samples, positions)."""

NO_IMPORTANCE: Importance = MappingProxyType({})

LEAST, MOST = 0.1, 8.0
"""What a position counts at least and at most, beside the mean. With 32 in place of 8 a sentence
encoder gained as much."""

MATRIX = 2
"""Axes of a weight that multiplies tokens or features."""

LIGHT = 1 << 23
"""Bytes of the outputs of all layers and their gradients in a sample, up to which signs are drawn
`DRAWS` times; once of larger ones, whose passes back take long."""

DRAWS = 4


def importance_of(
    model: Model,
    calibration: Calibration,
    plan: QuantizationPlan,
    batches: Sequence[Mapping[str, NDArray[Any]]],
    tokens: Tokens,
    progress: Progress,
) -> Importance:
    """Of each matrix whose output has a gradient.

    Not where the data decide on the number of positions, as behind a NonMaxSuppression. Not of
    convolutions: of maps on which positions count alike, passes back take long for nothing.
    """
    graph = Graph(model)
    sized = sized_by_values(graph)
    axes: dict[str, int] = {}
    for place in plan.weights:
        node = graph.by_name[place.node]
        layout = weight_layout(graph, node)
        if node.output in sized or isinstance(layout, Refusal):
            continue
        if len(layout.shape) == MATRIX:
            axes[node.output] = layout.output_axis
    if not axes:
        return NO_IMPORTANCE
    sizes = (bytes_in_sample(calibration, name) for name in axes if name in calibration.tensors)
    draws = DRAWS if sum(sizes) <= LIGHT else 1
    try:
        powers = power_by_position(
            model, calibration, batches, axes, draws=draws, tokens=tokens, progress=progress
        )
    except (ModelError, ResourceError):
        # The model itself runs: without gradients all positions count alike.
        return NO_IMPORTANCE
    return {name: _bounded(each) for name, each in powers.items()}


def fitting(
    counts: Sequence[NDArray[np.float32]] | None,
    shapes: Sequence[tuple[int, ...]],
    channels: int,
) -> Sequence[NDArray[np.float32]] | None:
    """The counts of a layer, unless samples that ran alone lie elsewhere in their batches."""
    wanted = [(shape[0], math.prod(shape) // max(shape[0] * channels, 1)) for shape in shapes]
    return counts if counts and [each.shape for each in counts] == wanted else None


def _bounded(powers: Sequence[NDArray[np.float64]]) -> Sequence[NDArray[np.float32]]:
    mean = float(np.concatenate([each.ravel() for each in powers]).mean(dtype=np.float64))
    if not (np.isfinite(mean) and mean > 0):
        return [np.ones(each.shape, np.float32) for each in powers]
    return [np.clip(each / mean, LEAST, MOST).astype(np.float32) for each in powers]
