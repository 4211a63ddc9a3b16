"""Which samples quantization takes into memory: to settle layers on, and to measure on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxq.calibration.statistics import Calibration
from onnxq.calibration.stream import batch_of
from onnxq.data.batching import one_by_one, samples_in
from onnxq.data.gather import BATCH_SIZE, gather_both
from onnxq.data.masks import has_padding
from onnxq.data.source import DataSource
from onnxq.equalization.prove import PROOF_SAMPLES, Feeds
from onnxq.options.effort import USUAL, Effort

LEAST_SAMPLES = 8
"""Samples to settle layers on, however large the activations are."""

MEMORY_FOR_SAMPLES = 1 << 28
"""Bytes that one activation of all correction samples may take."""

MEASURED_SAMPLES = 64
"""Held-out samples on which variants of the quantized model are compared."""

HOLD_OUT = 8
"""Every so many-th batch of calibration data is held out to measure on."""


@dataclass(frozen=True)
class MeasuredOn:
    """How many samples an estimate rests on, and whether none of them had a part in the model."""

    samples: int
    held_out: bool


@dataclass(frozen=True)
class Samples:
    """Samples in memory: those that settle layers, and those held out to measure on.

    `unseen` says whether the calibration never saw the held-out ones either.
    """

    correction: list[Feeds]
    held_out: list[Feeds]
    unseen: bool

    def one_by_one(self) -> Samples:
        """Each as a batch of its own, where the model takes any."""
        return Samples(one_by_one(self.correction), one_by_one(self.held_out), self.unseen)

    @property
    def padded(self) -> bool:
        """Whether some positions are padding, and do not count."""
        return has_padding([*self.correction, *self.held_out])

    @property
    def proof(self) -> list[Feeds]:
        """The first batches, of `PROOF_SAMPLES` samples or more."""
        return _first(self.correction, PROOF_SAMPLES)

    def first(self, count: int) -> list[Feeds]:
        """The first batches that settle layers, of `count` samples or more."""
        return _first(self.correction, count)

    @property
    def measured(self) -> list[Feeds]:
        """What to measure on: the samples held out; the others where there are too few for that."""
        return self.held_out or _first(self.correction, MEASURED_SAMPLES)

    @property
    def measured_on(self) -> MeasuredOn:
        return MeasuredOn(sum(map(samples_in, self.measured)), bool(self.held_out))


def _first(batches: list[Feeds], count: int) -> list[Feeds]:
    """The first batches, of `count` samples or more."""
    chosen: list[Feeds] = []
    for feeds in batches:
        if sum(map(samples_in, chosen)) >= count:
            break
        chosen.append(feeds)
    return chosen


def hold_out_of(source: DataSource | None) -> int:
    """Every how many-th batch is held out; 0 for none, where the data are few or uncounted."""
    count = 0 if source is None else source.count or 0
    return HOLD_OUT if count >= HOLD_OUT * BATCH_SIZE else 0


def take_samples(
    source: DataSource,
    calibration: Calibration,
    *,
    hold_out: int,
    unseen: bool,
    effort: Effort = USUAL,
) -> Samples:
    """As many samples as fit the memory set aside for the largest activation.

    Args:
        hold_out: see `hold_out_of`.
        unseen: whether the calibration never saw those held out.
        effort: how many settle layers.
    """
    per_sample = max(
        (each.seen * 4 / max(calibration.samples, 1) for each in calibration.tensors.values()),
        default=1.0,
    )
    wanted = effort.positions / max(_positions(calibration), 1.0)
    most = np.clip(wanted, effort.settling, effort.most)
    count = int(np.clip(MEMORY_FOR_SAMPLES / max(per_sample, 1), LEAST_SAMPLES, most))
    held = MEASURED_SAMPLES if hold_out else 0
    size = batch_of(calibration)
    settle, held_out = gather_both(source, count, held, size=size, hold_out=hold_out)
    return Samples(settle, held_out, unseen)


def _positions(calibration: Calibration) -> float:
    """Most positions that a tensor with channels has in a sample."""
    return max(
        (
            each.seen / each.channels / max(calibration.samples, 1)
            for each in calibration.tensors.values()
            if each.channels > 1
        ),
        default=1.0,
    )
