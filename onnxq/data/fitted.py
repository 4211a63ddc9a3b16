"""The samples of a source as one model takes them: finite, and singly where it needs that."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from onnxq.data.around import SourceAround
from onnxq.data.batching import Array, BatchAxes, Feeds
from onnxq.data.checks import is_finite
from onnxq.data.source import Batch, DataSource
from onnxq.errors import DataError, ModelError
from onnxq.model.session import open_session, run
from onnxq.refusal import Refusal

if TYPE_CHECKING:
    from onnxq.data.geometry import Geometry
    from onnxq.model.model import Model

TOUCHING = 1e-3
"""Difference between an output of two samples together and of each alone, of its largest
magnitude, that rounding does not explain: batches of other sizes are added in another order."""

REFUSES_BATCHES = Refusal("the model does not run in batches: one sample at a time")


@dataclass(frozen=True, eq=False)
class FittedSource(SourceAround):
    """A source whose samples are checked.

    Attributes:
        nonfinite: inputs that may hold NaN and Inf; None for all.
        singly: why the model is given one sample at a time; None where it takes batches.
        mask: the input that says which positions count; "" for none.
    """

    nonfinite: Collection[str] | None
    singly: Refusal | None = None
    mask: str = ""

    @property
    def axes(self) -> BatchAxes:
        axes = self.source.axes if self.singly is None else self.source.axes.singly()
        return replace(axes, mask=self.mask)

    @property
    def note(self) -> str:
        reason = "" if self.singly is None else self.singly.reason
        return "; ".join(part for part in (self.source.note, reason) if part)

    @property
    def doubt(self) -> Refusal | None:
        """Why the labels cannot be class indices of the model's; None where they can."""
        doubt: Refusal | None = getattr(self.source, "doubt", None)
        return doubt

    def geometry(self, index: int) -> Geometry | None:
        """Where the pixels of sample `index` went; None where it is no image."""
        found: Callable[[int], Geometry | None] = getattr(self.source, "geometry", lambda _: None)
        return found(index)

    def batches(
        self,
        batch_size: int,
        *,
        start: int = 0,
        stop: int | None = None,
        first: int = 0,
        step: int = 1,
    ) -> Iterator[Batch]:
        """As the source's. Raises `DataError` for NaN and Inf where they are not allowed."""
        size, axes = (batch_size if self.singly is None else 1), self.axes
        for batch in self.source.batches(size, start=start, stop=stop, first=first, step=step):
            self._check_finite(batch)
            yield replace(batch, feeds=Feeds(batch.feeds.arrays, axes))

    def _check_finite(self, batch: Batch) -> None:
        """Raise `DataError` naming input and sample of the first NaN or Inf."""
        if self.nonfinite is None:
            return
        for name, values in batch.feeds.items():
            if name in self.nonfinite or is_finite(values):
                continue
            rows = (batch.feeds.sample(row)[name] for row in range(len(batch)))
            row, bad = next((row, each) for row, each in enumerate(rows) if not is_finite(each))
            nans, infs = int(np.isnan(bad).sum()), int(np.isinf(bad).sum())
            counts = " and ".join(f"{n} {kind}" for n, kind in ((nans, "NaN"), (infs, "Inf")) if n)
            raise DataError(
                f"{self.sample_name(batch.start + row)}: input {name!r} holds {counts}",
                hint="repair or remove this sample",
            )


def fit(
    source: DataSource, model: Model, *, nonfinite: Collection[str] | None = frozenset()
) -> FittedSource:
    """The samples as the model takes them: singly where those of one batch touch each other."""
    return FittedSource(source, nonfinite, run_singly(source, model))


def run_singly(source: DataSource, model: Model) -> Refusal | None:
    """Why the model is to be given one sample at a time; None where it takes batches.

    The first two samples are run together and each alone. A model that runs neither way says so
    where it is run in earnest.
    """
    if source.axes.fixed is not None or source.count == 1:
        return None
    first = next(source.batches(2, stop=2), None)
    if first is None or len(first) != 2:
        return None
    pair = first.feeds
    try:
        session = open_session(model)
        alone = [run(session, None, feeds) for feeds in pair.singles()]
    except ModelError:
        return None
    try:
        together = run(session, None, pair)
    except ModelError:
        return REFUSES_BATCHES
    for number, spec in enumerate(model.outputs):
        axis = source.axes.output(spec.name)
        difference = _difference(together[number], [each[number] for each in alone], axis)
        if difference > TOUCHING:
            return Refusal(
                f"samples of one batch touch each other ({spec.name!r} of two differs by "
                f"{difference:.1%} from what each has alone): one sample at a time"
            )
    return None


def _difference(together: Array, alone: list[Array], axis: int | None) -> float:
    """Largest difference over the largest magnitude; 0 for what is not one part a sample."""
    if axis is None or not isinstance(together, np.ndarray) or together.dtype.kind != "f":
        return 0.0
    if any(len(each.shape) <= axis or each.shape[axis] != 1 for each in alone):
        return 0.0
    apart = np.concatenate(alone, axis) if alone[0].shape == alone[1].shape else None
    if apart is None or apart.shape != together.shape or not apart.size:
        return 0.0
    usual = np.isfinite(apart) & np.isfinite(together)
    scale = float(np.abs(apart[usual]).max(initial=0.0))
    change = float(np.abs(apart[usual] - together[usual]).max(initial=0.0))
    return change / scale if scale else 0.0
