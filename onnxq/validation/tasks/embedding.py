"""`spearman` and `cosine`: embeddings of sentences or pictures, pooled by the mask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from onnxq.errors import UsageError
from onnxq.suggest import suggest
from onnxq.validation.tasks.common import Array, Arrays, Labels, chosen_output, is_float

POOLS = ("mean", "first")


@dataclass(frozen=True)
class Pooling:
    """How outputs become one embedding a sample.

    Attributes:
        output: which output; the first of floats with at least two axes where empty.
        mask: the input, samples×tokens, that says which tokens count; where empty an input whose
            name holds "mask", and without one all tokens count.
        pool: of tokens, samples×tokens×size, their "mean" or the "first".
        metric: for messages.
    """

    output: str
    mask: str
    pool: str
    metric: str

    def __post_init__(self) -> None:
        if self.pool not in POOLS:
            raise UsageError(
                f"{self.metric}: pool is {self.pool!r}", hint=f"it is one of {', '.join(POOLS)}"
            )

    def embeddings(self, inputs: Arrays, outputs: Arrays, reference: Arrays) -> NDArray[np.float64]:
        """Samples×size, float64, of `outputs`; the float model's say which output is meant."""
        name = chosen_output(
            reference, self.output, _is_embedding, self.metric, "an embedding or states of tokens"
        )
        array = outputs[name].astype(np.float64)
        if array.ndim != 3:
            return array.reshape(len(array), -1)
        if self.pool == "first":
            return np.asarray(array[:, 0])
        mask = self._mask(inputs, array.shape[:2])
        if mask is None:
            return np.asarray(array.mean(axis=1))
        # A state that is not finite must not come back as 0 · inf from behind the mask.
        kept = np.where(mask[..., None] != 0, array, 0) * mask[..., None]
        return np.asarray(kept.sum(axis=1) / np.maximum(mask.sum(axis=1), 1)[:, None])

    def _mask(self, inputs: Arrays, shape: tuple[int, ...]) -> Array | None:
        if self.mask and self.mask not in inputs:
            raise UsageError(
                f"{self.metric}: the model has no input {self.mask!r}",
                hint=suggest(self.mask, inputs, of="its inputs"),
            )
        names = [self.mask] if self.mask else [name for name in inputs if "mask" in name.lower()]
        for name in names:
            if inputs[name].shape == shape:
                return inputs[name].astype(np.float64)
        if self.mask:
            raise UsageError(
                f"{self.metric}: input {self.mask!r} is {inputs[self.mask].shape}, the output has "
                f"{shape} tokens"
            )
        return None


@dataclass
class _OfEmbeddings:
    """A metric of embeddings.

    Attributes:
        output, mask, pool: as in `Pooling`.
    """

    output: str = ""
    mask: str = ""
    pool: str = "mean"

    metric: ClassVar[str]
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self._pooling()

    def _pooling(self) -> Pooling:
        return Pooling(self.output, self.mask, self.pool, self.metric)


@dataclass
class PairSpearman(_OfEmbeddings):
    """Rank correlation, times 100, of the similarities of pairs: rows i and i + N/2 of N samples.

    The similarity is the cosine of the two embeddings; the truth is a score a pair, or the float
    model's similarities. Reimers and Gurevych, Sentence-BERT, https://arxiv.org/abs/1908.10084.
    """

    metric: ClassVar[str] = "spearman"
    takes_numbers: ClassVar[bool] = True

    _found: list[Array] = field(default_factory=list, init=False, repr=False)
    _exact: list[Array] = field(default_factory=list, init=False, repr=False)
    _scores: list[float | None] = field(default_factory=list, init=False, repr=False)

    def update(
        self, inputs: Arrays, outputs: Arrays, labels: Labels | None, reference: Arrays
    ) -> None:
        """Add a batch.

        Args:
            labels: the scores of the pairs at their first rows, at the second None or the same
                number; or None.

        Raises:
            UsageError: no output is an embedding, or labels are no numbers.
        """
        pooling = self._pooling()
        self._found.append(pooling.embeddings(inputs, outputs, reference))
        self._exact.append(pooling.embeddings(inputs, reference, reference))
        scores = () if labels is None or isinstance(labels, np.ndarray) else labels
        self._scores += [None if each is None else _number(each) for each in scores]

    def merge(self, other: PairSpearman) -> None:
        """Add what another instance saw of later batches."""
        self._found += other._found
        self._exact += other._exact
        self._scores += other._scores

    def compute(self) -> dict[str, float]:
        """The correlation; 0 where all the similarities are the same, for a constant ranks nothing.

        Raises:
            UsageError: the number of samples is odd or below four, the truth is constant, or the
                samples of a pair have two scores.
        """
        found = _pair_similarities(self._found)
        firsts, seconds = self._scores[: len(found)], self._scores[len(found) :]
        if any(b not in (None, a) for a, b in zip(firsts, seconds, strict=False)):
            raise UsageError(
                "spearman: the two samples of a pair, rows i and i + N/2, have different scores",
                hint="give one score a pair: half as many as samples",
            )
        scores = [score for score in firsts if score is not None]
        truth = np.array(scores, np.float64) if scores else _pair_similarities(self._exact)
        if len(truth) != len(found):
            raise UsageError(f"spearman: there are {len(truth)} scores for {len(found)} pairs")
        if len(np.unique(truth)) < 2:
            raise UsageError("spearman: all pairs are equally alike in the truth")
        return {"Spearman": 100 * _rank_correlation(truth, found)}


@dataclass
class EmbeddingCosine(_OfEmbeddings):
    """Mean cosine of each sample's embedding with the float model's.

    0 where one of the two is zero or not finite, 1 where both are zero.
    """

    metric: ClassVar[str] = "cosine"
    drop_in_percent: ClassVar[bool] = True

    _cosines: list[float] = field(default_factory=list, init=False, repr=False)

    def update(
        self,
        inputs: Arrays,
        outputs: Arrays,
        labels: Labels | None,  # noqa: ARG002 - every metric is given them
        reference: Arrays,
    ) -> None:
        """Add a batch; labels are not looked at.

        Raises:
            UsageError: no output is an embedding.
        """
        pooling = self._pooling()
        found = pooling.embeddings(inputs, outputs, reference)
        exact = pooling.embeddings(inputs, reference, reference)
        self._cosines += _cosines(exact, found).tolist()

    def merge(self, other: EmbeddingCosine) -> None:
        """Add what another instance saw of later batches."""
        self._cosines += other._cosines

    def compute(self) -> dict[str, float]:
        """The mean, and the least of all samples."""
        cosines = self._cosines or [1.0]
        # An exact sum, whose order does not matter.
        return {"cosine": math.fsum(cosines) / len(cosines), "least cosine": min(cosines)}


def _is_embedding(array: Array) -> bool:
    return array.ndim >= 2 and is_float(array)


def _number(label: Any) -> float:
    """The score of a pair."""
    if isinstance(label, (int, float)) and np.isfinite(label):
        return float(label)
    raise UsageError(
        f"spearman compares with scores of pairs, a label is {label!r:.40}",
        hint="give numbers, one a pair, with --labels FILE.txt, .csv or .npy, or none to compare "
        "with the float model",
    )


def _cosines(left: Array, right: Array) -> NDArray[np.float64]:
    """The cosine of each row with that of the other; rows not finite count as zero."""
    left, right = (np.where(np.isfinite(a).all(axis=1, keepdims=True), a, 0) for a in (left, right))
    # Scaled, so that large values do not overflow in the sum of squares.
    left, right = (
        a / np.maximum(np.abs(a).max(axis=1, keepdims=True), 1e-300) for a in (left, right)
    )
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    zero = ~left.any(axis=1) & ~right.any(axis=1)
    products = np.divide(
        (left * right).sum(axis=1), norms, out=np.zeros_like(norms), where=norms > 0
    )
    return np.where(zero, 1.0, products)


def _pair_similarities(batches: Sequence[Array]) -> NDArray[np.float64]:
    embeddings = np.concatenate(batches) if batches else np.zeros((0, 1))
    half, odd = divmod(len(embeddings), 2)
    if odd or half < 2:
        raise UsageError(
            f"spearman: {len(embeddings)} samples make no pairs",
            hint="give an even number, at least 4: first all firsts, then all seconds",
        )
    # Rounded, so that equal similarities have equal ranks whatever their last bits.
    return np.round(_cosines(embeddings[:half], embeddings[half:]), 12)


def _rank_correlation(left: Array, right: Array) -> float:
    """Spearman's: the correlation of ranks, equal values having the mean of theirs."""
    ranks = np.stack([_ranks(left), _ranks(right)])
    ranks -= ranks.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(ranks, axis=1).prod()
    return float(ranks.prod(axis=0).sum() / norms) if norms else 0.0


def _ranks(values: Array) -> NDArray[np.float64]:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return np.asarray((last - (counts - 1) / 2)[places.reshape(-1)], np.float64)
