"""Fingerprints of data that do not depend on the order of the samples."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from onnxq.data.batching import Array
    from onnxq.data.preprocess import Preprocessing
    from onnxq.data.source import Batch


def combine(digests: Iterable[bytes], preprocessing: Preprocessing | None = None) -> str:
    """SHA-256 of (Σ digests mod 2²⁵⁶, preprocessing), as 64 hexadecimal digits.

    Each digest is the SHA-256 of one sample. A sum, unlike an exclusive or, also tells how often
    a sample occurs.
    """
    total = sum(int.from_bytes(digest, "big") for digest in digests) % (1 << 256)
    text = "" if preprocessing is None else str(preprocessing)
    return hashlib.sha256(total.to_bytes(32, "big") + text.encode()).hexdigest()


def sample_digests(batches: Iterable[Batch]) -> Iterable[bytes]:
    """The `sample_digest` of each sample."""
    for batch in batches:
        yield from (sample_digest(batch.feeds.sample(row)) for row in range(len(batch)))


def sample_digest(sample: Mapping[str, Array]) -> bytes:
    """SHA-256 of what is fed: names, element types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, values in sorted(sample.items()):
        # The width of text arrays is that of the longest text in the file.
        is_text = values.dtype.kind == "U"
        kind = "str" if is_text else values.dtype.name
        digest.update(f"{name}\0{kind}\0{values.shape}\0".encode())
        content = np.ascontiguousarray(values)
        digest.update(json.dumps(values.tolist()).encode() if is_text else content.tobytes())
    return digest.digest()
