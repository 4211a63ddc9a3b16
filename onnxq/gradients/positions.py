"""How much each position of a layer's output matters: the squares of its gradients there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.statistics import Calibration
from onnxq.data.ahead import map_ahead
from onnxq.data.batching import one_by_one
from onnxq.data.tokens import NO_TOKENS, Tokens
from onnxq.gradients.graph import backward_model
from onnxq.gradients.leaves import find_leaves
from onnxq.gradients.seeds import LeafShapes, Shapes, passes_back
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.session import Runtime
from onnxq.progress import SILENT, Progress

Array = NDArray[Any]
Feeds = Mapping[str, Array]
Powers = Mapping[str, Sequence[NDArray[np.float64]]]
"""Tensor → of each batch (samples, positions)."""


def power_by_position(
    model: Model,
    calibration: Calibration,
    batches: Sequence[Feeds],
    axes: Mapping[str, int],
    *,
    draws: int = 1,
    tokens: Tokens = NO_TOKENS,
    progress: Progress = SILENT,
) -> Powers:
    """Mean squared gradient of the outputs over the channels of each position.

    Args:
        model: normalized, float.
        calibration: of the same model.
        batches: samples in batches of any size; each runs alone.
        axes: tensor → the axis of its channels; the others, flattened, are positions.
        draws: of signs, for each sample.
        tokens: which axes count tokens, so that padding does not count.

    Returns:
        Of the tensors that have a gradient.
    """
    graph = Graph(model)
    leaves = find_leaves(graph, calibration.tensors)
    made = backward_model(graph, list(axes), leaves.tensors)
    if not made.gradients or not leaves.parts:
        return {}
    shapes = LeafShapes(graph, leaves.tensors)
    session = Runtime(threads=1, lean=True).open(made.model, optimize=False)
    outputs = list(made.gradients.values())

    def powers(item: tuple[Feeds, Shapes]) -> list[NDArray[np.float64]]:
        total: list[NDArray[np.float64]] = []
        for found in passes_back(session, made, outputs, leaves.parts, item, tokens, draws):
            drawn = [_over_channels(gradient, axes[name])
                     for name, gradient in zip(made.gradients, found, strict=True)]  # fmt: skip
            total = [a + b for a, b in zip(total, drawn, strict=True)] if total else drawn
        return [each / draws for each in total]

    singles = [one_by_one([batch]) for batch in batches]
    items = ((feeds, shapes.of(feeds)) for batch in singles for feeds in batch)
    result: dict[str, list[NDArray[np.float64]]] = {name: [] for name in made.gradients}
    with progress.track("gradients of layers", sum(map(len, singles))) as advance:
        rows = map_ahead(powers, items, ahead=1)
        for batch in singles:
            taken = [next(rows) for _ in batch]
            for number, name in enumerate(result):
                result[name].append(np.concatenate([each[number] for each in taken]))
            advance(len(batch))
    return result


def _over_channels(gradient: Array, axis: int) -> NDArray[np.float64]:
    """(samples, positions): mean square over the channels."""
    rows = np.moveaxis(np.atleast_2d(gradient), axis, 1)
    rows = rows.reshape(*rows.shape[:2], math.prod(rows.shape[2:]))
    return np.asarray(np.square(rows, dtype=np.float64).mean(axis=1))
