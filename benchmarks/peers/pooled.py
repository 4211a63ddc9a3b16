"""A metric for sentence encoders: `--metric benchmarks/peers/pooled.py:PooledSqnr`.

SQNR of the embeddings that are compared in the end: tokens averaged by the mask, then normalized.
Closeness of the tokens themselves is `sqnr`.
"""

import numpy as np


class PooledSqnr:
    """dB, over all samples together."""

    unit = "dB"

    def __init__(self):
        self.signal = self.noise = 0.0

    def update(self, inputs, outputs, labels, reference):  # noqa: ARG002
        # The first output of tokens × features; a model may have others.
        name = next(key for key, value in reference.items() if value.ndim == 3)
        mask = inputs["attention_mask"]
        exact, got = (embeddings(each[name], mask) for each in (reference, outputs))
        self.signal += float(np.square(exact).sum())
        self.noise += float(np.square(exact - got).sum())

    def compute(self):
        return float(10 * np.log10(self.signal / self.noise)) if self.noise else float("inf")


def embeddings(tokens, mask):
    """(samples, features) of length 1."""
    weights = mask.astype(np.float64)[..., None]
    pooled = (tokens.astype(np.float64) * weights).sum(axis=1) / weights.sum(axis=1)
    return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
