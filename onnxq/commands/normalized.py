"""Normalize for a command: with what float64 loses measured on its data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from onnxq.closeness import OutputCloseness, Sums, add_sums, closeness, sums_of
from onnxq.commands.budget import one_sample
from onnxq.data.batching import samples_in
from onnxq.data.budget import Batching, Limits, plan_batching
from onnxq.data.gather import run_batches
from onnxq.data.sizes import Shapes
from onnxq.data.source import DataSource
from onnxq.equalization.prove import Feeds, proof_feeds
from onnxq.errors import ModelError
from onnxq.model.doubles import require_close
from onnxq.model.model import Model
from onnxq.model.normalize import Normalization, normalize
from onnxq.model.session import Runtime


def normalized_on(
    model: Model,
    source: DataSource | None,
    shapes: Shapes,
    limits: Limits,
    *,
    opset: int = 0,
    runtime: Runtime | None = None,
) -> tuple[Model, Normalization]:
    """`normalize`; a float64 model runs as it was given too, and the difference is recorded.

    Args:
        source: what both run on; None for random samples.
        shapes: input → sizes for these where the model leaves them open.
        runtime: where they run; None for the CPU.

    Raises:
        ModelError: the difference is too large, or ONNX Runtime does not run the model as given.
    """
    normalized, record = normalize(model, opset=opset)
    if record.narrowed is None:
        return normalized, record
    batching = plan_batching(one_sample(normalized, source, shapes, runtime), limits.halved())
    feeds = proof_feeds(model, source, shapes=shapes)
    narrowed = replace(
        record.narrowed,
        difference=_difference(model, normalized, feeds, batching),
        samples=sum(map(samples_in, feeds)),
        random=source is None,
    )
    require_close(model, narrowed)
    return normalized, replace(record, narrowed=narrowed)


def _difference(given: Model, changed: Model, feeds: Sequence[Feeds], batching: Batching) -> float:
    """Root mean square of the difference over the rms, of the worst float output."""
    names = [spec.name for spec in given.outputs]
    before, after = (
        run_batches(model, None, feeds, optimize=False, batching=batching)
        for model in (given, changed)
    )
    found: dict[str, Sums] = {}
    try:
        for batch, wanted, got in zip(feeds, before, after, strict=True):
            one, other = dict(zip(names, wanted, strict=True)), dict(zip(names, got, strict=True))
            add_sums(found, sums_of(one, other, samples_in(batch)))
    except ModelError as error:
        raise ModelError(
            f"{given.name}: its layers compute in float64, and what float32 loses cannot be "
            f"measured: {error.message}",
            hint=error.hint or "export it in float32, as PyTorch does after model.float()",
        ) from None
    return max((_relative(each) for each in closeness(found) if each.is_float), default=0.0)


def _relative(output: OutputCloseness) -> float:
    """Root mean square of the error over the rms; infinite where shapes differ."""
    sqnr = output.whole.sqnr
    if output.other_shape:
        return math.inf
    return 0.0 if math.isnan(sqnr) else float(10 ** (-sqnr / 20))
