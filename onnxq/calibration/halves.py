"""Two halves of the data: where their ranges differ much, there are too few samples.

What a sample holds says which half it belongs to, so neither the order of the data nor how they are
shared out does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from onnxq.data.batching import Array, as_feeds
from onnxq.data.fingerprint import sample_digest
from onnxq.data.masks import Real
from onnxq.data.tokens import Tokens
from onnxq.model.blocked import Observed

Halves = NDArray[np.intp]
"""0 or 1, whichever half a sample belongs to; of several samples (samples,)."""

FIRST = np.zeros(1, np.intp)
"""That of a single sample."""

BOTH = np.intp(2)
"""What belongs to both; `kernels.take` knows the number."""


def halves_of(feeds: Mapping[str, Array]) -> Halves:
    """The half of each sample of a batch."""
    whole = as_feeds(feeds)
    digests = (sample_digest(whole.sample(row)) for row in range(whole.samples))
    return np.array([digest[0] & 1 for digest in digests], np.intp)


def without_padding(
    seen: Mapping[str, Observed],
    halves: Halves,
    axes: Mapping[str, int | None],
    real: Real,
    tokens: Tokens,
) -> Iterator[tuple[NDArray[np.intp], dict[str, Observed]]]:
    """The tensors of a batch with their real positions only, each half by itself.

    Positions that are taken out of a tensor no longer tell which sample they are of.

    Args:
        seen: tensor → its values.
        axes: tensor → the axis that counts samples, 0 where none is given.
        real: which positions are no padding.

    Yields:
        Rows of the batch, and the tensors there. What has no axis of samples comes with the first.
    """
    shared = {name for name, each in seen.items() if not _splits(each, axes.get(name, 0), halves)}
    for half in np.unique(halves):
        rows = np.flatnonzero(halves == half)
        found = {}
        for name, each in seen.items():
            if name not in shared:
                values = _rows_of(each.plain, axes.get(name, 0) or 0, rows, len(halves))
                kept = tokens.kept(name, values, real[rows])
                found[name] = Observed(values if kept is None else kept)
            elif half == halves.min():
                kept = tokens.kept(name, each.plain, real)
                found[name] = each if kept is None else Observed(kept)
        yield rows, found


def _splits(observed: Observed, axis: int | None, halves: Halves) -> bool:
    """Whether an axis of the values tells the samples apart."""
    shape = observed.values.shape  # in blocks only its channels are others
    return axis is not None and len(shape) > axis and shape[axis] % len(halves) == 0


def _rows_of(values: Array, axis: int, rows: NDArray[np.intp], samples: int) -> Array:
    """The values of some samples; an axis may hold several positions of each."""
    if len(rows) == samples:
        return values
    before, after = values.shape[:axis], values.shape[axis + 1 :]
    apart = values.reshape(*before, samples, -1, *after)
    return np.take(apart, rows, axis).reshape(*before, -1, *after)
