"""What the page shows of one model, layer by layer and tensor by tensor, as values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.statistics import Calibration
from onnxq.equalization.derive import derive_calibration
from onnxq.formats.parameters import Parameters
from onnxq.model.channel_scales import relation
from onnxq.model.graph import Node
from onnxq.model.model import Model
from onnxq.quantization.details import MEASURED_ON, SQNR
from onnxq.report import details as details_report
from onnxq.report.explain import Explanation, explain_node
from onnxq.report.html import charts
from onnxq.report.subject import Subject
from onnxq.report.table import Table, count, number, table
from onnxq.validation.layers import LayerError, LayerReport

Floats = NDArray[np.float64]

BOXES = 1600
"""Channels drawn on the whole page, before and after each."""

MOST_BOXES, LEAST_BOXES = 32, 8
"""Channels drawn of one layer."""


@dataclass(frozen=True)
class Link:
    """A layer by name, and where it is on the page."""

    name: str
    id: str


@dataclass(frozen=True)
class TensorFacts:
    """One activation.

    Attributes:
        seen: its values in the coordinates of this model; None where not known.
        parameters: scale and zero point; None in float.
        clipped: values beyond the range, %; NaN where not known.
        readers: layers that read it.
    """

    id: str
    name: str
    seen: charts.Seen | None
    parameters: Parameters | None
    clipped: float
    histogram: charts.Histogram | None
    readers: tuple[Link, ...]


@dataclass(frozen=True)
class WeightFacts:
    """One weight, before equalization and as it is.

    Attributes:
        spread_before, spread_after: of its output channels; `before` is None without the float
            model.
        boxes_before, boxes_after: of the channels shown.
        shown, channels: how many of how many.
        changed: whether the two differ by more than rounding.
    """

    shape: tuple[int, ...]
    spread_before: charts.Quartiles | None
    spread_after: charts.Quartiles | None
    boxes_before: charts.Boxes | None
    boxes_after: charts.Boxes
    shown: int
    channels: int
    changed: bool


@dataclass(frozen=True)
class LayerFacts:
    """One node of the float graph."""

    id: str
    explanation: Explanation
    error: LayerError | None
    weights: WeightFacts | None
    tensors: tuple[TensorFacts, ...]

    @property
    def link(self) -> Link:
        return Link(self.explanation.node, self.id)


@dataclass(frozen=True)
class Bar:
    """One layer's SQNR in the chart: as it stands, and alone; dB, infinity for identical."""

    link: Link
    standing: float
    alone: float
    share: float


@dataclass(frozen=True)
class View:
    """One model on the page.

    Attributes:
        id: prefix of its ids.
        summary, settings: lines about it.
        notes: what a reader must know.
        tables: title → table: classes, Clips, barriers, learnables, float nodes.
        report: the ranking of its layers; None without data.
    """

    id: str
    name: str
    summary: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    layers: tuple[LayerFacts, ...]
    tensors: tuple[TensorFacts, ...]
    tables: Mapping[str, Table]
    report: LayerReport | None
    bars: tuple[Bar, ...]
    curve: charts.Curve | None

    @property
    def ids(self) -> Mapping[str, str]:
        """Layer → id, for links in tables."""
        return {each.explanation.node: each.id for each in self.layers}


def view(
    prefix: str,
    subject: Subject,
    reference: Subject | None,
    calibration: Calibration | None,
    report: LayerReport | None,
) -> View:
    """Collect everything about one model.

    Args:
        prefix: of the ids of this model.
        reference: the float model that it was made from.
        calibration: of that model, or of this one where there is no other.
        report: the ranking of its layers.
    """
    ids = {node.name: f"{prefix}-layer-{number}" for number, node in enumerate(subject.graph.nodes)}
    statistics, lost = _statistics(subject.model, reference, calibration)
    tensors = _tensors(prefix, subject, statistics, ids)
    errors = {each.name: each for each in report.layers} if report else {}
    shown = _boxes_for(subject)
    layers = tuple(
        LayerFacts(
            ids[node.name], explain_node(subject, node), errors.get(node.name),
            _weights(subject, reference, node, shown),
            tuple(tensors[name] for name in (*subject.data_of(node), *node.outputs)
                  if name in tensors),
        )
        for node in subject.graph.nodes
    )  # fmt: skip
    notes = [f"{name}: no histogram, its scales are no powers of two" for name in lost]
    if report and report.warning:
        notes.append(report.warning)
    bars = tuple(
        Bar(each.link, each.error.standing, each.error.alone, each.error.share)
        for each in layers
        if each.error is not None
    )
    shares = [each.share for each in report.layers] if report else []
    curve = charts.sensitivity_curve(shares, report.sum_of_parts) if report else None
    return View(
        prefix, subject.model.name, tuple(details_report.summary(subject.model, subject.details)),
        tuple(_settings(subject)), tuple(notes), layers, tuple(tensors.values()), _tables(subject),
        report, bars, curve,
    )  # fmt: skip


# --- activations -----------------------------------------------------------------------------


def _statistics(
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


def _tensors(
    prefix: str, subject: Subject, statistics: Mapping[str, charts.Seen], ids: Mapping[str, str]
) -> dict[str, TensorFacts]:
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
            f"{prefix}-tensor-{len(found)}", name, usable, parameters,
            clipped, charts.histogram(usable, parameters) if usable is not None else None,
            tuple(Link(reader, ids[reader]) for reader in readers),
        )  # fmt: skip
    return found


# --- weights ---------------------------------------------------------------------------------


def _boxes_for(subject: Subject) -> int:
    weighted = sum(1 for node in subject.graph.nodes if subject.layout(node) is not None)
    return max(LEAST_BOXES, min(MOST_BOXES, BOXES // max(weighted, 1)))


def _weights(
    subject: Subject, reference: Subject | None, node: Node, most: int
) -> WeightFacts | None:
    after = _by_output(subject, node)
    if after is None:
        return None
    same = reference and reference.graph.by_name.get(node.name)
    before = _by_output(reference, same) if reference and same else None
    if before is not None and before.shape != after.shape:
        before = None
    channels = len(after)
    largest_after = np.abs(after).max(axis=1)
    largest = None if before is None else np.abs(before).max(axis=1)
    # From the narrowest to the widest, both of them included: what is uneven shows.
    ranks = np.unique(np.linspace(0, channels - 1, min(channels, most)).round().astype(int))
    picked = np.argsort(largest_after if largest is None else largest, kind="stable")[ranks]
    changed = False
    if largest is not None and largest.max(initial=0.0) > 0:
        # Rounding moves the widest weight of a channel by half a step; a scale by an octave.
        near = np.isclose(largest, largest_after, rtol=0.3, atol=largest_after.max() / 100)
        changed = not bool(near.all())
    return WeightFacts(
        after.shape, None if largest is None else charts.channel_spread(largest),
        charts.channel_spread(largest_after), None if before is None else _boxes(before, picked),
        _boxes(after, picked), len(picked), channels, changed,
    )  # fmt: skip


def _by_output(subject: Subject, node: Node) -> Floats | None:
    """The node's weight as (output channels, rest)."""
    layout = subject.layout(node)
    weight = subject.graph.constant(layout.weight) if layout else None
    if layout is None or weight is None or not weight.size:
        return None
    by_output = layout.to_output_major(np.asarray(weight, np.float64))
    rows: Floats = by_output.reshape(len(by_output), -1)
    return rows


def _boxes(weights: Floats, picked: NDArray[Any]) -> charts.Boxes:
    return charts.boxplots(list(weights[picked]), float(np.abs(weights[picked]).max(initial=0.0)))


# --- tables ----------------------------------------------------------------------------------


def _settings(subject: Subject) -> list[tuple[str, str]]:
    """How onnxq made the model, as far as its record tells."""
    record, found = subject.record, []
    settings, options = record.get("settings", {}), record.get("options", {})
    found += [(key, _setting(value)) for key, value in settings.items()]
    if options and not settings:  # a model of 0.1
        found.append(("weights", "per channel" if options.get("per_channel") else "per tensor"))
        found.append(("scales", "powers of two" if options.get("power_of_two") else "float"))
        found += [(key, str(options[key])) for key in ("ranges", "include", "exclude")
                  if options.get(key)]  # fmt: skip
    equalization = record.get("equalization")
    if equalization:
        found.append(("saturating Clips", str(equalization.get("relu6", ""))))
        found.append(("scaled channels", f"{equalization.get('scaled_channels', 0):,}"))
    elif record:
        found.append(("equalization", "none"))
    if SQNR in record and record[SQNR] != "nan":
        seen = (record.get(MEASURED_ON) or {}).get("held_out") is False
        where = " on samples it was made with" if seen else ""
        found.append(("SQNR when it was made", f"{float(record[SQNR]):.1f} dB{where}"))
    if record.get("centered_activations"):
        found.append(("activations centered", f"{record['centered_activations']:,}"))
    seen = record.get("calibration", {})
    if seen:
        text = count(seen.get("samples", 0), "sample")
        found.append(("calibrated on", ", ".join(filter(None, (text, seen.get("note", ""))))))
        if seen.get("preprocessing"):
            found.append(("preprocessing", seen["preprocessing"]))
    return [(key.replace("_", " ").replace("-", " "), value) for key, value in found]


def _setting(value: object) -> str:
    """An option's value as the page shows it."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return (
        {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    )


def _tables(subject: Subject) -> dict[str, Table]:
    record = subject.record.get("equalization") or {}
    found = {
        "Scale classes": table(
            "Class | >Channels | >Scaled | >Least log2 s | >Most log2 s | >Spread before "
            "| >Spread after | >Gain (dB) | Made by | Taken up by",
            [
                (each["tensors"][0], f"{each['channels']}", f"{each['scaled']}",
                 *(f"{end:.3g}" for end in each["exponents"]), number(each["spread_before"], 3),
                 number(each["spread_after"], 3), f"{each['gain']:.1f}",
                 ", ".join(each["producers"]), ", ".join(each["consumers"]))
                for each in record.get("classes", ())
            ],
        ),
        "Saturating Clips": table(
            "Clip | Mode | >Channels | >Saturating",
            [(each["node"], each["mode"], f"{each['channels']}",
              f"{each['saturating']}" if each["saturating"] >= 0 else "–")
             for each in record.get("clips", ())],
        ),
        "Barriers": table(
            "Barrier | Operator | Tensor | Reason",
            [(each.node, each.op_type, each.tensor, each.reason)
             for each in subject.classes.barriers],
        ),
    }  # fmt: skip
    for each in details_report.tables(subject.details):
        if each.title != "Quantized layers":
            found[each.title] = replace(each, title="")
    return found
