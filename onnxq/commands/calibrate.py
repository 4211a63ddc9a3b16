"""Calibrate: here, or on a cluster."""

from __future__ import annotations

from onnxq.calibration import stream
from onnxq.calibration.checkpoint import Checkpoint
from onnxq.calibration.cluster import calibrate_on_cluster
from onnxq.calibration.statistics import Calibration
from onnxq.commands.inputs import source_of
from onnxq.commands.normalized import normalized_on
from onnxq.commands.provider import runtime_of
from onnxq.data.budget import Limits
from onnxq.equalization.observed import tensors_to_observe
from onnxq.errors import UsageError
from onnxq.model.already import require_float
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.options.calibrate import CalibrateOptions
from onnxq.progress import Progress


def calibrate(model: Model, options: CalibrateOptions, progress: Progress) -> Calibration:
    """Collect what every tensor's values look like; see `onnxq.api.calibrate`."""
    if options.resume and options.state is None:
        raise UsageError("resume needs the state of a run", hint="name its file with state")
    runtime = runtime_of(options)
    require_float(model)
    source = source_of(options, model)
    limits = Limits(options.batch_size, options.memory)
    normalized, _ = normalized_on(model, source, {}, limits, runtime=runtime)
    request = stream.Request(
        tensors_to_observe(Graph(normalized)),
        model.fingerprint,
        limits,
        options.shard,
        allow_nonfinite=options.allow_nonfinite,
        runtime=runtime,
    )
    checkpoint = Checkpoint(options.state, options.resume) if options.state is not None else None
    if options.dask is not None:
        return calibrate_on_cluster(model, source, request, options.dask, progress=progress)
    return stream.calibrate(normalized, source, request, checkpoint=checkpoint, progress=progress)
