"""What runs of a model show of tensors that are quantized as it runs: the extremes of each run."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.statistics import Calibration
from onnxq.data.budget import Batching
from onnxq.data.gather import run_batches
from onnxq.data.padding import padded_batches
from onnxq.errors import ModelError
from onnxq.model.model import Model
from onnxq.model.session import with_outputs

Floats = NDArray[np.float64]
Feeds = Mapping[str, NDArray[Any]]

PADDED = 16
"""Samples of different lengths in a batch that is filled up."""

IN_BATCHES = 0.5
"""How much such batches count beside samples that run alone."""


@dataclass(frozen=True)
class Extremes:
    """What runs showed of one tensor.

    Attributes:
        highest, lowest: (runs, channels), 0 included.
        size: (channels,), root of the mean square.
        share: (runs,), of all positions.
    """

    highest: Floats
    lowest: Floats
    size: Floats
    share: Floats


def observe(
    model: Model,
    tensors: Sequence[str],
    feeds: Sequence[Feeds],
    calibration: Calibration,
    batching: Batching,
) -> Mapping[str, Extremes]:
    """What runs of a model show of some tensors, whose channels lie on the last axis."""
    known = [name for name in tensors if name in calibration.tensors]
    if not feeds or not known:
        return {name: _of_calibration(calibration, name) for name in known}
    shown = Model.adopt(with_outputs(model, known))
    alone = _runs(shown, known, feeds, batching)
    batches = padded_batches(feeds, PADDED)
    together: Mapping[str, list[_Run]] = {}
    # A model may take one sample at a time, whatever its inputs say.
    with contextlib.suppress(ModelError):
        together = _runs(shown, known, batches, batching.whole()) if batches else {}
    return {name: _joined(found, together.get(name, [])) for name, found in alone.items()}


_Run = tuple[Floats, Floats, Floats, int]
"""Highest, lowest and Σ x² of each channel; the number of positions."""


def _runs(
    model: Model, tensors: Sequence[str], feeds: Sequence[Feeds], batching: Batching
) -> Mapping[str, list[_Run]]:
    """What each run shows of each tensor."""
    parts: dict[str, list[_Run]] = {name: [] for name in tensors}
    for values in run_batches(model, tensors, feeds, optimize=False, batching=batching):
        for name, value in zip(tensors, values, strict=True):
            rows = value.reshape(-1, value.shape[-1]).astype(np.float64)
            high, low = rows.max(axis=0, initial=0.0), rows.min(axis=0, initial=0.0)
            parts[name].append((high, low, np.square(rows).sum(axis=0), len(rows)))
    return parts


def _joined(alone: Sequence[_Run], together: Sequence[_Run]) -> Extremes:
    """Of samples alone, whose sizes these are, and of batches, which count `IN_BATCHES`."""
    high, low, squares, counts = (np.array(each, np.float64) for each in zip(*alone, strict=True))
    total = max(counts.sum(), 1.0)
    size, share = np.sqrt(squares.sum(axis=0) / total), counts / total
    if together:
        highest, lowest, _, many = (
            np.array(each, np.float64) for each in zip(*together, strict=True)
        )
        high, low = np.concatenate([high, highest]), np.concatenate([low, lowest])
        parts = share * (1 - IN_BATCHES), many / many.sum() * IN_BATCHES
        share = np.concatenate(parts)
    return Extremes(high, low, size, share)


def _of_calibration(calibration: Calibration, name: str) -> Extremes:
    """All samples as one run."""
    found = calibration.tensors[name]
    high, low = np.maximum(found.maximum, 0.0), np.minimum(found.minimum, 0.0)
    return Extremes(high[None], low[None], np.sqrt(found.mean_square), np.ones(1))
