"""Random signs of the elements of a tensor, which follow from what the sample holds.

Over the signs the expected square of the gradient of Σ ±element is the sum of the squared
gradients of all elements, so one pass back does for all of them (Hutchinson).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.data.tokens import Tokens

Array = NDArray[Any]
Feeds = Mapping[str, Array]


def generator_of(feeds: Feeds) -> np.random.Generator:
    """Of random numbers that follow from what a sample holds, so the order of samples is none."""
    number = 0
    for name in sorted(feeds):
        values = np.asarray(feeds[name])
        texts = values.dtype.kind in "OSU"
        held = repr(values.tolist()).encode() if texts else values.tobytes()
        number = zlib.crc32(held, number)
    return np.random.default_rng(number)


def drawn_signs(
    generator: np.random.Generator,
    name: str,
    shape: tuple[int, ...],
    feeds: Feeds,
    tokens: Tokens,
) -> Array:
    """±1 for each element of a tensor, 0 where it is padding."""
    signs = generator.integers(0, 2, shape, np.int8).astype(np.float32) * 2 - 1
    real = tokens.real(name, shape, feeds)
    return signs if real is None else np.asarray(signs * real)
