"""Calibrate on a Dask cluster: shards on the workers, merged as they arrive."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from onnxq.calibration import files
from onnxq.calibration.merge import merge
from onnxq.calibration.shards import has_batches, join, split
from onnxq.calibration.stream import Request, calibrate, with_largest
from onnxq.cluster import connected, threads_of_task
from onnxq.data.budget import GROUP
from onnxq.errors import DataError
from onnxq.model.normalize import normalize
from onnxq.model.portable import PortableModel
from onnxq.model.session import Runtime
from onnxq.progress import SILENT, Progress

if TYPE_CHECKING:
    from onnxq.calibration.statistics import Calibration
    from onnxq.data.source import DataSource
    from onnxq.model.model import Model


@dataclass(frozen=True)
class Piece:
    """What one task does.

    Attributes:
        model: as the user named it, not yet normalized.
        source: data that the worker can read.
    """

    model: PortableModel
    source: DataSource
    request: Request


def calibrate_on_cluster(
    model: Model,
    source: DataSource,
    request: Request,
    address: str,
    *,
    progress: Progress = SILENT,
) -> Calibration:
    """`stream.calibrate` on a Dask cluster, with the same result.

    Args:
        model: as the user named it.
        address: of the scheduler, such as tcp://host:8786.

    Raises:
        DataError, ModelError: as `calibrate`.
        UsageError: no cluster, or a piece of work killed several workers.
    """
    _ = source.fingerprint
    request = with_largest(request, model, source)
    found: Calibration | None = None
    with connected(address) as cluster, progress.track("calibrate", source.count) as advance:
        batches = None if source.count is None else -(-source.count // GROUP)
        count = max(1, min(cluster.pieces, batches or cluster.pieces))
        portable = PortableModel.of(model)
        pieces = [Piece(portable, source, each) for each in split(request, count)]
        for _, content in cluster.map(_calibrate_piece, pieces):
            if content is None:
                continue
            part = files.from_bytes(content, Path(address))
            found = part if found is None else merge([found, part])
            advance(part.samples)
    if found is None:
        raise DataError(f"{source.spec}: no samples in shard {request.shard[0]}/{request.shard[1]}")
    return join([found], request.shard)


def _calibrate_piece(piece: Piece) -> bytes | None:
    """On a worker: one shard, as the content of a calibration file; None where it is empty."""
    if not has_batches(piece.source, piece.request):
        return None
    runtime = replace(piece.request.runtime, threads=threads_of_task())
    # Tasks that run side by side share the machine's memory as they share its cores.
    share = Runtime().cores // runtime.cores
    limits = replace(piece.request.limits, memory=piece.request.limits.budget // max(1, share))
    request = replace(piece.request, runtime=runtime, limits=limits)
    return files.to_bytes(calibrate(_normalized(piece.model), piece.source, request))


@lru_cache(maxsize=2)
def _normalized(portable: PortableModel) -> Model:
    return normalize(portable.unpack())[0]
