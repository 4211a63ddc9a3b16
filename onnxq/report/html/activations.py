"""What the page shows of activations: their values, ranges and what lies beyond these."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxq.calibration.statistics import Calibration
from onnxq.equalization.derive import derive_calibration
from onnxq.formats.parameters import Parameters
from onnxq.model.channel_scales import relation
from onnxq.model.model import Model
from onnxq.report.html import charts
from onnxq.report.subject import Subject


@dataclass(frozen=True)
class TensorFacts:
    """One activation.

    Attributes:
        seen: its values in the coordinates of this model; None where not known.
        parameters: scale and zero point; None in float.
        clipped: values beyond the range, %; NaN where not known.
        readers: layers that read it.
    """

    name: str
    seen: charts.Seen | None
    parameters: Parameters | None
    clipped: float
    histogram: charts.Histogram | None
    readers: tuple[str, ...]


def statistics_of(
    model: Model, reference: Subject | None, calibration: Calibration | None
) -> tuple[Mapping[str, charts.Seen], Sequence[str]]:
    """The calibration in this model's coordinates: y = 2^exponents·x − offset."""
    if calibration is None:
        return {}, ()
    if reference is None:
        return {name: charts.Seen(each) for name, each in calibration.tensors.items()}, ()
    exponents, offsets = relation(reference.model, model)
    scaled, lost = derive_calibration(calibration, exponents)
    found = {}
    for name, each in scaled.tensors.items():
        offset = offsets.get(name, np.zeros(())).ravel()
        one = offset.size == 1
        found[name] = (
            charts.Seen(each, float(offset[0])) if one else charts.Seen(each.shifted(offset))
        )
    return found, lost


def tensors_of(subject: Subject, statistics: Mapping[str, charts.Seen]) -> dict[str, TensorFacts]:
    """Activations that are quantized or were seen, in the order they are computed."""
    found: dict[str, TensorFacts] = {}
    for name in subject.graph.activations:
        seen, parameters = statistics.get(name), subject.activations.get(name)
        if seen is None and parameters is None:
            continue
        usable = seen if seen is not None and seen.statistics.count else None
        clipped = math.nan
        if usable is not None and parameters is not None:
            clipped = charts.clipped_share(usable, parameters)
        readers = dict.fromkeys(use.node.name for use in subject.graph.consumers(name))
        found[name] = TensorFacts(
            name, usable, parameters,
            clipped, charts.histogram(usable, parameters) if usable is not None else None,
            tuple(readers),
        )  # fmt: skip
    return found
