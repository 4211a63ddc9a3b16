"""One trial of `tune`: quantize, judge; here, or on a worker of a cluster."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from onnxq.closeness import worst
from onnxq.commands.kept import Kept, Sent
from onnxq.commands.quantize import quantize
from onnxq.commands.validate import validate
from onnxq.errors import OnnxqError, OutputError, ProviderError, ResourceError, UsageError
from onnxq.model import external
from onnxq.model.model import Model, with_metadata
from onnxq.model.portable import PortableModel
from onnxq.model.recipes import with_recipe
from onnxq.model.session import custom_operators
from onnxq.options.quantize import QuantizeOptions
from onnxq.options.validate import ValidateOptions
from onnxq.progress import SILENT, Progress
from onnxq.quantization.account import Account, Speed
from onnxq.validation.compare import Row as Compared

PASSING = (ResourceError, ProviderError, OutputError, MemoryError)
"""Errors that say nothing of the candidate: another time it may work."""


@dataclass(frozen=True)
class Metric:
    """A metric's value, in its unit.

    Attributes:
        values: all of one that gives several; {} for others.
    """

    value: float
    unit: str
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class OutputScore:
    """One output against the float model's: dB, and elements that are the same, %."""

    name: str
    sqnr: float
    cosine: float
    equal: float


@dataclass(frozen=True)
class Outcome:
    """What a candidate came to.

    Attributes:
        metrics: by name; the first is the one that a gate looks at.
        drop: how far that one fell below the float model's, in `drop_unit`.
        sqnr, sqnr_error: of the worst output, or group of slices of one, and its standard error;
            dB.
        worst_output: which that is.
        size: bytes of the model.
        layers, quantized_layers: nodes with a weight, and those whose weight is quantized.
        seconds: to make and to judge it, without the calibration that all share.
        content: a digest of the model without its metadata.
        same_as: the candidate that has the same model, and was judged; "" for none.
        speed: here; None where it was not timed.
        untimed: why not; "" where it was.
        failure: why there is no model; "" where there is one.
        passing: whether the failure says nothing of the candidate.
    """

    metrics: Mapping[str, Metric] = field(default_factory=dict)
    drop: float = float("nan")
    drop_unit: str = ""
    sqnr: float = float("nan")
    sqnr_error: float = float("nan")
    worst_output: str = ""
    outputs: tuple[OutputScore, ...] = ()
    size: int = 0
    layers: int = 0
    quantized_layers: int = 0
    samples: int = 0
    seconds: float = 0.0
    content: str = ""
    same_as: str = ""
    speed: Speed | None = None
    untimed: str = ""
    failure: str = ""
    passing: bool = False


@dataclass(frozen=True)
class Attempt:
    """What to try.

    Attributes:
        quantize: with the data opened.
        validate: the same; its gate gives the drop, whatever that is.
        recipe: what the model says of how it was made.
        known: contents of models that were judged already; the same again is not.
    """

    quantize: QuantizeOptions
    validate: ValidateOptions
    recipe: str
    known: frozenset[str] = frozenset()


def attempt(
    model: Model, asked: Attempt, kept: Kept, progress: Progress
) -> tuple[Outcome, Model | None]:
    """Make a candidate and judge it; what refuses it is the outcome."""
    since = time.monotonic()
    try:
        quantized, account = made(model, asked, kept, progress)
        content = _content(quantized)
        outcome = Outcome(size=quantized.size)
        if content not in asked.known:
            outcome = judged(model, quantized, asked.validate, progress)
    except (OnnxqError, MemoryError) as error:
        why = error.message if isinstance(error, OnnxqError) else "there is not enough memory"
        passing = isinstance(error, PASSING)
        seconds = time.monotonic() - since
        return Outcome(failure=why, passing=passing, seconds=seconds), None
    if account is not None:
        layers, some = account.layers, account.quantized_layers
        outcome = replace(outcome, layers=layers, quantized_layers=some)
    return replace(outcome, content=content, seconds=time.monotonic() - since), quantized


def _content(model: Model) -> str:
    """A digest of what the model computes; how it was made differs in every one."""
    return with_metadata(model, dict.fromkeys(model.metadata, "")).fingerprint


def made(
    model: Model, asked: Attempt, kept: Kept, progress: Progress
) -> tuple[Model, Account | None]:
    """The model that `onnxq quantize` writes, and what it came to."""
    quantized, result = quantize(model, asked.quantize, progress, kept)
    return with_recipe(quantized, "quantize", asked.recipe), result.account


def judged(model: Model, quantized: Model, options: ValidateOptions, progress: Progress) -> Outcome:
    """What `validate` says of it."""
    found = validate(model, [quantized], options, progress)
    row, gate = found.rows[1], found.gates[0]
    part = worst(row.outputs, lambda each: each.sqnr)
    return Outcome(
        metrics_of(row),
        gate.value,
        gate.unit,
        float("nan") if part is None else part.sqnr,
        float("nan") if part is None else part.sqnr_error,
        "" if part is None else part.label,
        tuple(
            OutputScore(each.name, each.whole.sqnr, each.whole.cosine, each.equal)
            for each in row.outputs
        ),
        quantized.size,
        samples=found.samples,
    )


def metrics_of(row: Compared) -> dict[str, Metric]:
    return {
        name: Metric(value, row.units[name], dict(row.details.get(name, {})))
        for name, value in row.values.items()
    }


# --- on a cluster ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Piece:
    """What one task does.

    Attributes:
        calibrations: fingerprint of a normalized form of the model → content of a calibration file.
    """

    model: PortableModel
    asked: Attempt
    calibrations: Mapping[str, bytes]
    libraries: tuple[Path, ...]


def attempt_piece(piece: Piece) -> tuple[Outcome, bytes]:
    """On a worker: the outcome and the model's bytes; b"" for none."""
    with custom_operators(piece.libraries):
        kept = Sent(piece.calibrations)
        outcome, quantized = attempt(piece.model.unpack(), piece.asked, kept, SILENT)
        if quantized is None:
            return outcome, b""
        if external.is_split(quantized.message):
            raise UsageError(
                "a model of this size is not sent back by workers", hint="run without --dask"
            )
        return outcome, external.inlined(quantized.message).SerializeToString(deterministic=True)
