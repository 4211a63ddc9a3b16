"""Count the tensors of batches, several of which may be counted at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from threading import Lock

import numpy as np

from onnxq.calibration.accumulate import Accumulator
from onnxq.calibration.statistics import NotFinite, TensorStatistics
from onnxq.data.source import DataSource
from onnxq.errors import DataError
from onnxq.model.blocked import Observed

Values = Mapping[str, Observed]


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
    """The accumulators of all tensors, which threads share."""

    def __init__(
        self, accumulators: dict[str, Accumulator], source: DataSource, *, allow_nonfinite: bool
    ) -> None:
        self._accumulators = accumulators
        self._locks = {name: Lock() for name in accumulators}
        self._source = source
        self._allow = allow_nonfinite

    def add(self, values: Values, start: int, half: int) -> None:
        """Count a batch. Another thread may count another one at the same time.

        Args:
            values: tensor name → values.
            start: index of the batch's first sample.
            half: 0 or 1, whichever half of the data the batch belongs to.

        Raises:
            DataError: NaN or Inf in the batch, unless they are allowed.
        """
        bad = self._count(values, half)
        for name in filter(bad.__contains__, values):
            found = self._locate(values[name], start, self._accumulators[name].axis)
            if not self._allow:
                raise DataError(
                    f"{found.kind} in activation {name!r} for sample {found.name}, "
                    f"channel {found.channel}",
                    hint="mend the model or the data, or pass --allow-nonfinite to leave such "
                    "values out",
                )
            with self._locks[name]:
                self._accumulators[name].note(found)

    def _count(self, values: Values, half: int) -> set[str]:
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
                    if not self._accumulators[name].add(values[name], half=half):
                        bad.add(name)
                finally:
                    self._locks[name].release()
            left = busy
        return bad

    def _locate(self, observed: Observed, start: int, axis: int | None) -> NotFinite:
        """The first value that is not finite. Axis 0 counts samples."""
        values = observed.plain
        place = np.argwhere(~np.isfinite(values))[0]
        sample = start + (int(place[0]) if values.ndim else 0)
        channel = 0 if axis is None else int(place[axis])
        kind = "NaN" if math.isnan(values[tuple(place)]) else "Inf"
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
