"""Equalize, then center: a float model with its calibration, on the way to a quantized one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.ranges import Range
from onnxq.calibration.statistics import Calibration
from onnxq.data.budget import WHOLE, Batching
from onnxq.equalization.center import center_by, derive_shifted
from onnxq.equalization.centering import (
    LARGEST_CHANGE,
    REFERENCE_LEVELS,
    Centering,
    plan_centering,
    rolled_back,
)
from onnxq.equalization.choose import Choice
from onnxq.equalization.classes import find_classes
from onnxq.equalization.derive import derive_calibration
from onnxq.equalization.equalize import Equalization, carry_out
from onnxq.equalization.prove import Feeds, Proof, compare_outputs, run_reference
from onnxq.equalization.sensitivity import input_gains
from onnxq.model.channel_scales import with_exponents, with_offsets
from onnxq.model.files import infer_shapes
from onnxq.model.graph import Graph
from onnxq.model.model import Model


@dataclass(frozen=True)
class Trial:
    """One way to prepare the float model.

    Attributes:
        name: what sets it apart.
        sqnr: dB, once it was quantized with weights rounded to nearest, and biases corrected on
            few samples.
        final: dB, once it was quantized as asked for; NaN where it was not.
    """

    name: str
    sqnr: float
    final: float = math.nan


@dataclass(frozen=True)
class Prepared:
    """The float model as it will be quantized: what a plan starts from.

    Attributes:
        model: equalized and centered.
        calibration: of exactly that model; None where activations stay in float and nobody looked.
        gains: tensor → how much an error in each of its channels matters (channels,).
        equalization, centering: what was done; None where not asked for.
        trials: the ways that were tried, this one among them; () where none was.
    """

    model: Model
    calibration: Calibration | None
    gains: Mapping[str, NDArray[np.float64]]
    equalization: Equalization | None = None
    centering: Centering | None = None
    trials: tuple[Trial, ...] = ()

    @property
    def centered_ranges(self) -> Mapping[str, Range]:
        """Tensor → the range that centering fitted to its offset."""
        return self.centering.ranges if self.centering is not None else {}

    def recorded_in(self, model: Model) -> Model:
        """The model, this one or one made from it, with the scales and offsets on record."""
        if self.equalization is not None:
            model = with_exponents(model, self.equalization.exponents)
        if self.centering is not None:
            model = with_offsets(model, self.centering.broadcastable(Graph(self.model)))
        return model


def unchanged(model: Model, calibration: Calibration | None) -> Prepared:
    """A normalized model that is quantized as it is."""
    return Prepared(model, calibration, _gains(model, calibration))


def scaled(
    choice: Choice, feeds: Sequence[Feeds], batching: Batching = WHOLE
) -> tuple[Prepared, Equalization]:
    """Scale as chosen, less what fails the proof.

    Args:
        feeds: inputs for the proof.
        batching: how they run.
    """
    model, record = carry_out(choice, feeds, batching)
    model, calibration = infer_shapes(model), choice.calibration
    if calibration is not None:
        calibration, _ = derive_calibration(calibration, record.exponents)
    return Prepared(model, calibration, _gains(model, calibration), record), record


def centered(prepared: Prepared, ranges: str, levels: int) -> Prepared:
    """Center the activations, for formats without zero points.

    Args:
        ranges: the estimator that will choose the ranges.
        levels: quantization levels of activations.
    """
    if prepared.calibration is None:
        return prepared
    graph, calibration = Graph(prepared.model), prepared.calibration
    plan = plan_centering(graph, calibration, prepared.gains, ranges, levels)
    moved = derive_shifted(calibration, plan)
    model = center_by(prepared.model, plan)
    return replace(prepared, model=model, calibration=moved, centering=plan)


def centered_and_proved(
    prepared: Prepared,
    ranges: str,
    original: Model,
    feeds: Sequence[Feeds],
    batching: Batching = WHOLE,
) -> tuple[Prepared, Proof | None]:
    """`centered`, unless the float outputs would change by more than `LARGEST_CHANGE`.

    Args:
        original: the model before it was scaled.
        feeds: inputs for the proof.

    Returns:
        Also the outputs against those of `original`; None where nothing is centered after all.
    """
    done = centered(prepared, ranges, REFERENCE_LEVELS)
    if done.centering is None:
        return prepared, None
    change = compare_outputs(run_reference(original, feeds, batching=batching), done.model)
    if -change.sqnr <= LARGEST_CHANGE:
        return done, change
    reason = f"the float outputs would change by {-change.sqnr:.1f} dB"
    return replace(prepared, centering=rolled_back(done.centering, reason)), None


def _gains(model: Model, calibration: Calibration | None) -> dict[str, NDArray[np.float64]]:
    if calibration is None:
        return {}
    graph = Graph(model)
    return input_gains(graph, find_classes(graph), calibration)
