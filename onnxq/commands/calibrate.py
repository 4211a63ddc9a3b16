"""Calibrate: here, or on a cluster."""

from __future__ import annotations

from dataclasses import replace

from onnxq.calibration import stream
from onnxq.calibration.checkpoint import Checkpoint
from onnxq.calibration.cluster import calibrate_on_cluster
from onnxq.calibration.statistics import Calibration
from onnxq.calibration.stored_costs import rounded
from onnxq.commands.budget import one_sample
from onnxq.commands.inputs import as_calibration, require_same_preprocessing, source_of
from onnxq.commands.normalized import normalized_on
from onnxq.commands.provider import runtime_of
from onnxq.data.budget import Limits, plan_batching
from onnxq.data.gather import gather_any
from onnxq.data.masks import has_padding
from onnxq.data.source import DataSource
from onnxq.data.tokens import NO_TOKENS
from onnxq.equalization.observed import tensors_to_observe
from onnxq.errors import DataError, UsageError
from onnxq.gradients import measure_costs
from onnxq.model.already import require_float
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.options.calibrate import CalibrateOptions
from onnxq.options.effort import DEFAULT_EFFORT, EFFORTS
from onnxq.progress import Progress


def calibrate(model: Model, options: CalibrateOptions, progress: Progress) -> Calibration:
    """Collect what every tensor's values look like; see `onnxq.api.calibrate`."""
    if options.resume and options.state is None:
        raise UsageError("resume needs the state of a run", hint="name its file with state")
    runtime = runtime_of(options)
    require_float(model)
    source = source_of(options, model)
    given = options.calibration
    whole = None if given is None else _whole(as_calibration(given, model), source)
    limits = Limits(options.batch_size, options.memory)
    with progress.track("prepare the model", None):
        normalized, _ = normalized_on(model, source, {}, limits, runtime=runtime)
    request = stream.Request(
        tensors_to_observe(Graph(normalized)),
        model.fingerprint,
        limits,
        options.shard,
        allow_nonfinite=options.allow_nonfinite,
        runtime=runtime,
    )
    if whole is not None:
        found = whole
    elif options.dask is not None:
        found = calibrate_on_cluster(model, source, request, options.dask, progress=progress)
    else:
        state = options.state
        checkpoint = Checkpoint(state, options.resume) if state is not None else None
        found = stream.calibrate(
            normalized, source, request, checkpoint=checkpoint, progress=progress
        )
    return _with_costs(normalized, source, request, found, progress) if options.gradients else found


def _whole(calibration: Calibration, source: DataSource) -> Calibration:
    """A calibration that gradients can be added to, or `DataError`."""
    require_same_preprocessing(calibration.provenance.preprocessing, source, "the calibration")
    if calibration.shards != ((1, 1),):
        raise DataError(
            "the calibration is of a part of the data", hint="onnxq merge all shards of it first"
        )
    return calibration


def _with_costs(
    model: Model,
    source: DataSource,
    request: stream.Request,
    calibration: Calibration,
    progress: Progress,
) -> Calibration:
    """With what errors of each tensor cost at the outputs, on samples of any place in the data.

    Args:
        model: the normalized one, which was calibrated.
    """
    effort = EFFORTS[DEFAULT_EFFORT]
    feeds = gather_any(source, effort.gradients)
    sample = one_sample(model, source, runtime=request.runtime)
    costs = measure_costs(
        model,
        calibration,
        feeds,
        samples=effort.gradients,
        room=plan_batching(sample, request.limits.halved()).room // 2,
        tokens=sample.tokens if has_padding(feeds) else NO_TOKENS,
        progress=progress,
    )
    return replace(calibration, costs=rounded(costs, calibration.tensors))
