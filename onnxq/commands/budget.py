"""One sample of what a command is given, to learn from it how much memory the model takes."""

from __future__ import annotations

from onnxq.calibration import stream
from onnxq.data.budget import OneSample
from onnxq.data.random import random_feeds
from onnxq.data.sizes import Shapes
from onnxq.data.source import DataSource
from onnxq.model.model import Model


def one_sample(model: Model, source: DataSource | None, shapes: Shapes | None = None) -> OneSample:
    """The first sample of the data, or a random one where there are none.

    Args:
        shapes: input → sizes for a random one where the model leaves them open.
    """
    if source is None:
        return OneSample(model, lambda: random_feeds(model, shapes=shapes or {})[0])
    return stream.one_sample(model, source)
