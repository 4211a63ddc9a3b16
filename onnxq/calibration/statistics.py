"""What calibration knows of tensors: exact extremes, counts and histograms, mergeable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration import bins
from onnxq.calibration.costs import Costs
from onnxq.errors import DataError
from onnxq.shown import Shown


@dataclass(frozen=True, order=True)
class NotFinite:
    """Where a NaN or an infinity is; the smallest of several is the first one.

    Attributes:
        sample: index in the data.
        name: what the data call that sample.
        channel: along the tensor's channel axis, 0 where it has none.
        kind: "NaN" or "Inf".
    """

    sample: int
    name: str
    channel: int
    kind: str


@dataclass(frozen=True)
class TensorStatistics:
    """Statistics of one tensor over all samples.

    Attributes:
        axis: the channel axis, None where the whole tensor is one channel.
        minimum, maximum: float32 (channels,), over the finite values; +inf and −inf where none.
        counts: (channels, 1 + 2·magnitude_bins(top)), see `bins`; uint16, or int32 or int64 where
            a channel has too many values.
        top: exponent above every finite magnitude.
        not_finite: number of NaN and infinite values.
        first_not_finite: the first of them, None where there is none.
        halves: float32 (2, 2), smallest and largest finite value in either half of the samples,
            see `onnxq.calibration.halves`; None for statistics that were derived, not observed.
        step: every so many-th position was counted; extremes, NaN and Inf are those of all.
    """

    axis: int | None
    minimum: NDArray[np.float32]
    maximum: NDArray[np.float32]
    counts: bins.Counts
    top: int
    not_finite: int
    first_not_finite: NotFinite | None = None
    halves: NDArray[np.float32] | None = None
    step: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", bins.narrowest(self.counts))

    @property
    def channels(self) -> int:
        return len(self.minimum)

    @cached_property
    def count(self) -> int:
        """Number of finite values that were counted."""
        return int(self.counts.sum())

    @property
    def seen(self) -> int:
        """Number of values, about, counted or not."""
        return self.count * self.step

    @property
    def low(self) -> float:
        """Smallest finite value of the whole tensor."""
        return float(self.minimum.min())

    @property
    def high(self) -> float:
        return float(self.maximum.max())

    @cached_property
    def mean_square(self) -> NDArray[np.float64]:
        """E[x²] of each channel (channels,), from bin centers: within 0.1 %."""
        return self._moment(2)

    @cached_property
    def mean(self) -> NDArray[np.float64]:
        """E[x] of each channel (channels,), from bin centers."""
        return self._moment(1)

    @property
    def variance(self) -> NDArray[np.float64]:
        """Variance of each channel (channels,)."""
        result: NDArray[np.float64] = np.maximum(self.mean_square - self.mean**2, 0.0)
        return result

    def has_extremes_of(self, other: TensorStatistics) -> bool:
        """Whether each channel has the same range: as where the tensor was not scaled."""
        return np.array_equal(self.minimum, other.minimum) and np.array_equal(
            self.maximum, other.maximum
        )

    def share_of(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of each channel's values that fall into the bin of `values` ≥ 0.

        Args:
            values: one for each channel (channels,), or (1,) for all; float32 numbers.
        """
        half_words = values.astype(np.float32).view(np.uint32) >> 16
        columns = np.broadcast_to(bins.lookup_table(self.top)[half_words], (self.channels,))
        found = np.take_along_axis(self.counts, columns[:, None], axis=1)[:, 0]
        share: NDArray[np.float64] = found / np.maximum(self.counts.sum(axis=1), 1)
        return share

    def _moment(self, power: int) -> NDArray[np.float64]:
        values = bins.column_values(self.top) ** power
        total = np.maximum(self.counts.sum(axis=1), 1)
        result: NDArray[np.float64] = (self.counts @ values) / total
        return result

    def merge(self, other: TensorStatistics) -> TensorStatistics:
        """Statistics of both sets of samples together; exact, commutative and associative."""
        if self.axis != other.axis or self.channels != other.channels:
            raise DataError("the calibrations count other channels of the same tensor")
        if self.step != other.step:
            raise DataError("the calibrations count other positions of the same tensor")
        top = max(self.top, other.top)
        return TensorStatistics(
            self.axis,
            np.minimum(self.minimum, other.minimum),
            np.maximum(self.maximum, other.maximum),
            np.add(
                bins.regrow(self.counts, self.top, top),
                bins.regrow(other.counts, other.top, top),
                dtype=np.int64,
            ),
            top,
            self.not_finite + other.not_finite,
            min(filter(None, (self.first_not_finite, other.first_not_finite)), default=None),
            _merge_halves(self.halves, other.halves),
            self.step,
        )

    def scaled(self, exponents: NDArray[np.int64]) -> TensorStatistics:
        """Statistics of the tensor with channel c multiplied by 2^exponents[c], exactly.

        Args:
            exponents: (channels,), or (1,) for one scale for the whole tensor.
        """
        exponents = np.broadcast_to(exponents, (self.channels,))
        counts, top = bins.shift(self.counts, self.top, exponents)
        gain = np.exp2(exponents.astype(np.float32)).astype(np.float32)
        return replace(
            self, minimum=self.minimum * gain, maximum=self.maximum * gain, counts=counts, top=top,
            halves=None,
        )  # fmt: skip

    def shifted(self, offset: NDArray[np.float64]) -> TensorStatistics:
        """Statistics of the tensor with offset[c] subtracted from channel c.

        Extremes are exact; each bin moves as a whole, by its center, so counts are exact to the
        width of the bins they come from.

        Args:
            offset: (channels,), or (1,) for one offset for the whole tensor.
        """
        offset = np.broadcast_to(offset, (self.channels,))
        values = bins.column_values(self.top)[None, :] - offset[:, None]
        minimum, maximum = (
            (extreme - offset).astype(np.float32) for extreme in (self.minimum, self.maximum)
        )
        moved = np.clip(values, minimum[:, None], maximum[:, None]).astype(np.float32)
        top = bins.top_of(float(max(np.abs(minimum).max(), np.abs(maximum).max())))
        columns = bins.lookup_table(top)[bins.high_half(moved)]
        width = 1 + 2 * bins.magnitude_bins(top)
        # Sums of integers in float64 are exact; they stay below 2^53.
        rows = [
            np.bincount(column, found, width)
            for column, found in zip(columns, self.counts, strict=True)
        ]
        counts = np.stack(rows).astype(np.int64)
        return replace(self, minimum=minimum, maximum=maximum, counts=counts, top=top, halves=None)

    @cached_property
    def pooled(self) -> NDArray[np.int64]:
        """The whole tensor's histogram row."""
        row: NDArray[np.int64] = self.counts.sum(axis=0, dtype=np.int64)
        return row


def _merge_halves(
    one: NDArray[np.float32] | None, other: NDArray[np.float32] | None
) -> NDArray[np.float32] | None:
    if one is None or other is None:
        return None
    return np.stack(
        [np.minimum(one[:, 0], other[:, 0]), np.maximum(one[:, 1], other[:, 1])], axis=1
    )


@dataclass(frozen=True)
class Provenance:
    """Where a calibration comes from; two calibrations merge only if these agree.

    Attributes:
        model: fingerprint of the model.
        preprocessing: canonical text of the image preprocessing, "" for arrays.
        batch_size: samples in a batch, which decides what a shard holds.
        schema: names the bins.
    """

    model: str
    preprocessing: str
    batch_size: int
    schema: str = bins.SCHEMA


def join_notes(notes: Iterable[str]) -> str:
    """All notes in one, each once, in an order that does not depend on theirs."""
    return "; ".join(sorted({part for note in notes for part in note.split("; ") if part}))


@dataclass(frozen=True, repr=False)
class Calibration(Shown):
    """Statistics of one model's activations over one data set.

    Attributes:
        provenance: what must agree between calibrations that are merged.
        data: fingerprint of the samples, whatever their order.
        note: what a reader must know of the data ("random samples").
        samples: number of samples seen.
        shards: the parts seen, as (index, count); ((1, 1),) for all of the data.
        tensors: tensor name → statistics.
        costs: what errors of the tensors cost at the outputs; None where nobody measured it.
    """

    provenance: Provenance
    data: str
    note: str
    samples: int
    shards: tuple[tuple[int, int], ...]
    tensors: Mapping[str, TensorStatistics]
    costs: Costs | None = None
