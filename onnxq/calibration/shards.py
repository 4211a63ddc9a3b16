"""One shard of a calibration in more of them, whose parts make up the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from onnxq.calibration.merge import merge
from onnxq.calibration.statistics import Calibration
from onnxq.calibration.stream import Request
from onnxq.data.budget import GROUP
from onnxq.data.source import DataSource


def split(request: Request, parts: int) -> list[Request]:
    """The request as so many requests whose parts make up the whole."""
    index, count = request.shard
    return [replace(request, shard=(index + count * part, count * parts)) for part in range(parts)]


def join(parts: Sequence[Calibration], shard: tuple[int, int]) -> Calibration:
    """The parts of one shard as that shard, with the bits of one process."""
    return replace(merge(parts), shards=(shard,))


def has_batches(source: DataSource, request: Request) -> bool:
    """Whether the shard is not empty: there may be fewer batches than shards."""
    index, count = request.shard
    first = next(iter(source.batches(GROUP, first=index - 1, step=count)), None)
    return first is not None
