"""Merge calibrations of parts of the data: the same bits as one pass over all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from onnxq.calibration.statistics import Calibration, TensorStatistics, join_notes
from onnxq.errors import DataError


def merge(parts: Sequence[Calibration]) -> Calibration:
    """Merge shards, in any order.

    Raises:
        DataError: the parts come from different models, data, preprocessing or bins, a shard is
            given twice, or one is missing.
    """
    first = parts[0]
    for part in parts[1:]:
        for label, a, b in (
            ("models", first.provenance.model, part.provenance.model),
            ("preprocessing", first.provenance.preprocessing, part.provenance.preprocessing),
            ("batch sizes", first.provenance.batch_size, part.provenance.batch_size),
            ("bins", first.provenance.schema, part.provenance.schema),
            ("data", first.data, part.data),
        ):
            if a != b:
                raise DataError(f"the calibrations cannot be merged: different {label}")
    shards = sorted(shard for part in parts for shard in part.shards)
    doubled = {shard for shard in shards if shards.count(shard) > 1}
    if doubled:
        index, count = min(doubled)
        raise DataError(f"the calibrations cannot be merged: shard {index}/{count} is given twice")
    counts = {count for _, count in shards}
    if len(counts) > 1:
        raise DataError("the calibrations cannot be merged: they split the data differently")
    tensors: dict[str, TensorStatistics] = {}
    for part in parts:
        for name, statistics in part.tensors.items():
            tensors[name] = tensors[name].merge(statistics) if name in tensors else statistics
    whole = len(shards) == next(iter(counts))
    return replace(
        first,
        note=join_notes(part.note for part in parts),
        samples=sum(part.samples for part in parts),
        shards=((1, 1),) if whole else tuple(shards),
        tensors=dict(sorted(tensors.items())),
        costs=None,
    )
