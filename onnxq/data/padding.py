"""Samples of several lengths, put into one batch as those who run such models do.

The shorter ones are filled up with zeros, and a mask says what is theirs. Positions that are only
filled are computed like others: they have a part in the range of what is quantized as the model
runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.data.batching import Feeds, as_feeds

Array = NDArray[Any]


def padded_batches(feeds: Sequence[Mapping[str, Array]], size: int) -> list[Feeds]:
    """Batches of `size` samples of different lengths; none where there is no mask or all are alike.

    Args:
        feeds: of one sample each.
    """
    if not feeds:
        return []
    singles = [as_feeds(each) for each in feeds]
    mask = singles[0].axes.mask
    if mask not in singles[0] or singles[0][mask].ndim != 2:
        return []
    if any((each.axes.fixed or 0) > 1 or each.samples != 1 for each in singles):
        return []
    lengths = [each[mask].shape[1] for each in singles]
    if len(set(lengths)) == 1:
        return []
    groups = [singles[first : first + size] for first in range(0, len(singles), size)]
    return [_joined(group) for group in groups if len(group) > 1]


def _joined(group: Sequence[Feeds]) -> Feeds:
    longest = max(each[each.axes.mask].shape[1] for each in group)
    arrays = {
        name: values
        if group[0].axes.inputs.get(name) is None
        else np.concatenate([_filled(each, name, longest) for each in group])
        for name, values in group[0].items()
    }
    return Feeds(arrays, group[0].axes)


def _filled(feeds: Feeds, name: str, longest: int) -> Array:
    """An input filled up, where it has as many positions as the mask."""
    values, length = feeds[name], feeds[feeds.axes.mask].shape[1]
    if values.ndim < 2 or values.shape[1] != length:
        return values
    after = [(0, longest - length if axis == 1 else 0) for axis in range(values.ndim)]
    return np.pad(values, after)
