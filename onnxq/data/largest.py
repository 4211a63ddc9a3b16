"""The largest sample of some data: what memory has to be enough for."""

from __future__ import annotations

from onnxq.data.batching import Feeds, elements_of_sample
from onnxq.data.source import DataSource
from onnxq.errors import DataError
from onnxq.model.model import Model, TensorSpec

BATCH = 8
"""Samples that are read at once."""


def largest_sample(model: Model, source: DataSource) -> Feeds:
    """The first of the largest samples; a whole batch where the model fixes its size.

    Where the model leaves sizes open all samples are read: one image may be larger than all before
    it, and what runs at once has to be known before the first one runs.

    Raises:
        DataError: there are no samples, or they do not fit the model.
    """
    found: Feeds | None = None
    for batch in source.batches(BATCH):
        feeds, fixed = batch.feeds, batch.feeds.axes.fixed
        if found is None or elements_of_sample(feeds) > elements_of_sample(found):
            found = feeds if fixed else feeds.take([0])
        if not _is_open(model, feeds):
            break
    if found is None:
        raise DataError(f"{source.spec}: no samples")
    return found


def _is_open(model: Model, feeds: Feeds) -> bool:
    """Whether samples may differ in size."""
    return any(_open_axes(spec, feeds.axes.inputs.get(spec.name)) for spec in model.inputs)


def _open_axes(spec: TensorSpec, samples: int | None) -> bool:
    sides = enumerate(spec.shape) if spec.shape is not None else [(0, None), (1, None)]
    return any(not isinstance(side, int) for axis, side in sides if axis != samples)
