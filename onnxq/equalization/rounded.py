"""What a target rounds besides the inputs of layers: the noise of each such tensor.

A convolution's own output before an activation in float, the sum of a residual: a scale that the
weights would like can leave such a tensor uneven, and then its rounding costs more than the scale
brings.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.statistics import Calibration, TensorStatistics
from onnxq.equalization.sensitivity import Frame
from onnxq.model.graph import Graph

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]

Rounded = Callable[[Graph, Calibration], Collection[str]]
"""Of a model and its calibration: the tensors whose rounded values something reads that is no
layer with a weight and does not merely move them. The caller knows the target."""


@dataclass(frozen=True)
class RoundedTensor:
    """A tensor that the target rounds.

    Attributes:
        ids: class of each channel (channels,), 0 for a pinned one.
        bound: its largest magnitude (channels,).
        gain: how much an error in each channel matters (channels,): as much as what reads the
            class makes of it, relative to the power of the tensor itself.
    """

    tensor: str
    ids: Ids
    bound: Floats
    gain: Floats


def rounded_tensors(
    frame: Frame, names: Collection[str], by_class: Mapping[int, float]
) -> Iterator[RoundedTensor]:
    """Those of `names` that were counted along the axis of their scales.

    Args:
        by_class: root → how much an error in its channels matters; see `sensitivities`.
    """
    for name in sorted(names):
        statistics, ids = frame.tensors.get(name), None
        if statistics is not None:
            ids = _ids(frame, name, statistics)
        if statistics is None or ids is None:
            continue
        scales = frame.scales(ids)
        # Pinned channels count 1, as they do at the output of a layer.
        gain = np.array([by_class.get(root, 1.0) if root else 1.0 for root in ids.tolist()])
        signal = float(gain @ (statistics.variance * scales**2))
        bound = np.maximum(-statistics.minimum, statistics.maximum) * scales
        if signal > 0:
            yield RoundedTensor(name, ids, bound, gain / signal)


def _ids(frame: Frame, name: str, statistics: TensorStatistics) -> Ids | None:
    """The class of each channel that was counted; None where they lie otherwise."""
    pattern = frame.classes.patterns.get(name)
    if pattern is None:
        return None
    if pattern.size > 1 and frame.classes.channel_axis(name) != statistics.axis:
        return None
    if pattern.size not in {1, statistics.channels}:
        return None
    return np.broadcast_to(pattern.ravel(), (statistics.channels,))
