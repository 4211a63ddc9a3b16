"""Count the tensors of one batch, in threads, while the caller computes the next one."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future

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
    """The accumulators of all tensors. One batch is counted at a time, its tensors in parallel."""

    def __init__(
        self,
        accumulators: dict[str, Accumulator],
        source: DataSource,
        threads: int,
        *,
        allow_nonfinite: bool,
    ) -> None:
        self._accumulators = accumulators
        self._source = source
        self._threads = threads
        self._allow = allow_nonfinite
        self._values: Values = {}
        self._start = 0
        self._pending: list[Future[list[str]]] = []

    def take(self, pool: Executor, values: Values, start: int, half: int) -> None:
        """Begin to count a batch, once the one before is done.

        Args:
            values: tensor name → values.
            start: index of the batch's first sample.
            half: 0 or 1, whichever half of the data the batch belongs to.

        Raises:
            DataError: NaN or Inf in the batch before, unless they are allowed.
        """
        self.wait()
        self._values, self._start = values, start
        # The last computed first: they are still in the cache.
        left = deque(reversed(list(values)))
        self._pending = [pool.submit(self._count, left, half) for _ in range(self._threads)]

    def _count(self, left: deque[str], half: int) -> list[str]:
        """Count tensors until none is left; those with values that are not finite."""
        bad: list[str] = []
        while True:
            try:
                name = left.popleft()
            except IndexError:
                return bad
            if not self._accumulators[name].add(self._values[name], half=half):
                bad.append(name)

    def wait(self) -> None:
        """Return when all batches are counted. Raises as `take` does."""
        pending, self._pending = self._pending, []
        # All of them first: nothing is left running behind an error.
        bad = {name for future in pending for name in future.result()}
        values, self._values = self._values, {}
        for name in filter(bad.__contains__, values):
            found = self._locate(values[name], self._start, self._accumulators[name].axis)
            if not self._allow:
                raise DataError(
                    f"{found.kind} in activation {name!r} for sample {found.name}, "
                    f"channel {found.channel}",
                    hint="mend the model or the data, or pass --allow-nonfinite to leave such "
                    "values out",
                )
            self._accumulators[name].note(found)

    def _locate(self, observed: Observed, start: int, axis: int | None) -> NotFinite:
        """The first value that is not finite. Axis 0 counts samples."""
        values = observed.plain
        place = np.argwhere(~np.isfinite(values))[0]
        sample = start + (int(place[0]) if values.ndim else 0)
        channel = 0 if axis is None else int(place[axis])
        kind = "NaN" if math.isnan(values[tuple(place)]) else "Inf"
        return NotFinite(sample, self._source.sample_name(sample), channel, kind)

    def so_far(self) -> Mapping[str, TensorStatistics]:
        """The statistics so far, each made when it is asked for: all would be large."""
        return _SoFar(self._accumulators)

    def finish(self) -> dict[str, TensorStatistics]:
        """The statistics of the tensors that had values, by name in sorted order.

        Each accumulator is let go once its result is there.
        """
        found = {name: self._accumulators.pop(name).finish() for name in sorted(self._accumulators)}
        return {name: value for name, value in found.items() if value is not None}
