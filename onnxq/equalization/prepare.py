"""Equalize, then center: a float model with its calibration, on the way to a quantized one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.statistics import Calibration
from onnxq.equalization.centering import (
    LARGEST_CHANGE,
    Centering,
    center_by,
    derive_shifted,
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
class Prepared:
    """The float model as it will be quantized: what a plan starts from.

    Attributes:
        model: equalized and centered.
        calibration: of exactly that model.
        gains: tensor → how much an error in each of its channels matters (channels,).
        equalization, centering: what was done; None where not asked for.
    """

    model: Model
    calibration: Calibration
    gains: Mapping[str, NDArray[np.float64]]
    equalization: Equalization | None = None
    centering: Centering | None = None

    def recorded_in(self, model: Model) -> Model:
        """The model, this one or one made from it, with the scales and offsets on record."""
        if self.equalization is not None:
            model = with_exponents(model, self.equalization.exponents)
        if self.centering is not None:
            model = with_offsets(model, self.centering.broadcastable(Graph(self.model)))
        return model


def unchanged(model: Model, calibration: Calibration) -> Prepared:
    """A normalized model that is quantized as it is."""
    return Prepared(model, calibration, _gains(model, calibration))


def scaled(
    choice: Choice, calibration: Calibration, feeds: Sequence[Feeds]
) -> tuple[Prepared, Equalization]:
    """Scale as chosen, less what fails the proof.

    Args:
        calibration: of the model that the scales were chosen for.
        feeds: inputs for the proof.
    """
    model, record = carry_out(choice, feeds)
    model = infer_shapes(model)
    calibration, _ = derive_calibration(calibration, record.exponents)
    return Prepared(model, calibration, _gains(model, calibration), record), record


def centered(prepared: Prepared, ranges: str) -> Prepared:
    """Center the activations, for targets without zero points.

    Args:
        ranges: the estimator that will choose the ranges.
    """
    plan = plan_centering(Graph(prepared.model), prepared.calibration, prepared.gains, ranges)
    return _centered_by(prepared, plan)


def _centered_by(prepared: Prepared, plan: Centering) -> Prepared:
    model = center_by(prepared.model, plan)
    calibration = derive_shifted(prepared.calibration, plan)
    return replace(prepared, model=model, calibration=calibration, centering=plan)


def centered_and_proved(
    prepared: Prepared, ranges: str, original: Model, feeds: Sequence[Feeds]
) -> tuple[Prepared, Proof | None]:
    """`centered`, unless the float outputs would change by more than `LARGEST_CHANGE`.

    Args:
        original: the model before it was scaled.
        feeds: inputs for the proof.

    Returns:
        Also the outputs against those of `original`; None where nothing is centered after all.
    """
    plan = plan_centering(Graph(prepared.model), prepared.calibration, prepared.gains, ranges)
    done = _centered_by(prepared, plan)
    change = compare_outputs(run_reference(original, feeds), done.model)
    if -change.sqnr <= LARGEST_CHANGE:
        return done, change
    reason = f"the float outputs would change by {-change.sqnr:.1f} dB"
    return replace(prepared, centering=rolled_back(plan, reason)), None


def _gains(model: Model, calibration: Calibration) -> dict[str, NDArray[np.float64]]:
    graph = Graph(model)
    return input_gains(graph, find_classes(graph), calibration)
