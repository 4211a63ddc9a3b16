"""Count the tensors of batches, several of which may be counted at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Lock

import numpy as np

from onnxq.calibration.accumulate import Accumulator
from onnxq.calibration.halves import Halves
from onnxq.calibration.not_finite import INF, NAN
from onnxq.calibration.statistics import NotFinite, TensorStatistics
from onnxq.data.ahead import map_ahead
from onnxq.data.source import DataSource
from onnxq.errors import DataError
from onnxq.model.blocked import Observed
from onnxq.refusal import Refusal

Values = Mapping[str, Observed]
Harm = Callable[[str, str], Refusal | None]


class _SoFar(Mapping[str, TensorStatistics]):
    """The tensors that had values, by name in sorted order."""

    def __init__(self, accumulators: Mapping[str, Accumulator]) -> None:
        self._of = {n: a for n, a in sorted(accumulators.items()) if not a.is_empty}

    def __getitem__(self, name: str) -> TensorStatistics:
        found = self._of[name].finish()
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)


class Counter:
    """The accumulators of all tensors, which threads share.

    Args:
        harm: what a "NaN" or "Inf" in a tensor spoils, None for nothing.
        threads: that count the tensors of one batch. More than one where fewer batches than there
            are cores run at a time: a core would be idle.
    """

    def __init__(
        self, accumulators: dict[str, Accumulator], source: DataSource, harm: Harm, threads: int = 1
    ) -> None:
        self._accumulators = accumulators
        self._locks = {name: Lock() for name in accumulators}
        self._source = source
        self._harm = harm
        self._threads = threads

    def add(self, values: Values, samples: Sequence[int], halves: Halves) -> None:
        """Count a batch. Another thread may count another one at the same time.

        Args:
            values: tensor name → values.
            samples: index of each sample in the data.
            halves: whichever half of the data each of its samples belongs to.

        Raises:
            DataError: NaN or Inf in the batch where they do harm.
        """
        count = self._source.count
        batches = None if count is None else -(-count // len(samples))
        if self._threads > 1:
            bad = self._count_together(values, halves, batches)
        else:
            bad = self._count(values, halves, batches)
        for name in filter(bad.__contains__, values):
            found = self._locate(values[name], samples, self._accumulators[name].axis)
            harm = self._harm(name, found.kind)
            if harm is not None:
                raise DataError(
                    f"{found.kind} in activation {name!r} for sample {found.name}, "
                    f"channel {found.channel}: {harm.reason}",
                    hint="mend the model or the data, or pass --allow-nonfinite to leave such "
                    "values out",
                )
            with self._locks[name]:
                self._accumulators[name].note(found)

    def _count(self, values: Values, halves: Halves, batches: int | None) -> set[str]:
        """Count all tensors; the names of those with values that are not finite."""
        bad: set[str] = set()
        # The last computed first: they are still in the cache.
        left = list(reversed(list(values)))
        # Those that another thread is at come last, not to wait for it.
        for waits in (False, True):
            busy = []
            for name in left:
                if not self._locks[name].acquire(blocking=waits):
                    busy.append(name)
                    continue
                try:
                    if not self._accumulators[name].add(values[name], halves, batches=batches):
                        bad.add(name)
                finally:
                    self._locks[name].release()
            left = busy
        return bad

    def _count_together(self, values: Values, halves: Halves, batches: int | None) -> set[str]:
        """The same in threads."""

        def count(name: str) -> bool:
            with self._locks[name]:
                return self._accumulators[name].add(values[name], halves, batches=batches)

        names = list(reversed(list(values)))
        finite = map_ahead(count, names, workers=self._threads, threads="count")
        return {name for name, all_are in zip(names, finite, strict=True) if not all_are}

    def _locate(self, observed: Observed, samples: Sequence[int], axis: int | None) -> NotFinite:
        """The first NaN, or if there is none the first infinity. Axis 0 counts samples, if any."""
        values = observed.plain
        nans = np.argwhere(np.isnan(values))
        kind = NAN if len(nans) else INF
        place = nans[0] if len(nans) else np.argwhere(~np.isfinite(values))[0]
        counts = values.ndim > 0 and len(values) == len(samples)
        sample = samples[int(place[0]) if counts else 0]
        channel = 0 if axis is None else int(place[axis])
        return NotFinite(sample, self._source.sample_name(sample), channel, kind)

    def so_far(self) -> Mapping[str, TensorStatistics]:
        """The statistics so far, each made when it is asked for: all would be large.

        No batch may be added meanwhile.
        """
        return _SoFar(self._accumulators)

    def finish(self) -> dict[str, TensorStatistics]:
        """The statistics of the tensors that had values, by name in sorted order.

        Each accumulator is let go once its result is there.
        """
        found = {name: self._accumulators.pop(name).finish() for name in sorted(self._accumulators)}
        return {name: value for name, value in found.items() if value is not None}
