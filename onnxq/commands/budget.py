"""One sample of what a command is given, to learn from it how much memory the model takes."""

from __future__ import annotations

from collections.abc import Iterable

from onnxq.calibration import stream
from onnxq.data.budget import GROUP, Limits, OneSample
from onnxq.data.random import random_feeds
from onnxq.data.sizes import Shapes
from onnxq.data.source import DataSource
from onnxq.model.dynamic import quantizes_as_it_runs
from onnxq.model.model import Model
from onnxq.model.session import Runtime


def limits_for(models: Iterable[Model], batch_size: int | None, memory: int) -> Limits:
    """What may run at once, where some of the models may be quantized.

    Args:
        batch_size: as asked for. Without it, what quantizes by the range of each run takes one
            sample at a time: else the others in its batch had a part in the result.
    """
    dynamic = any(map(quantizes_as_it_runs, models))
    return Limits(batch_size or GROUP, memory, (batch_size or 1) if dynamic else 0)


def one_sample(
    model: Model,
    source: DataSource | None,
    shapes: Shapes | None = None,
    runtime: Runtime | None = None,
) -> OneSample:
    """The first sample of the data, or a random one where there are none.

    Args:
        shapes: input → sizes for a random one where the model leaves them open.
        runtime: where the model runs; None for the CPU.
    """
    runtime = runtime or Runtime()
    if source is None:
        return OneSample(model, lambda: random_feeds(model, shapes=shapes or {})[0], runtime)
    return stream.one_sample(model, source, runtime)
