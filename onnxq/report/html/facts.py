"""What the page shows of one model, layer by layer and tensor by tensor, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from onnxq.calibration.statistics import Calibration
from onnxq.model.graph import Node
from onnxq.report import details as details_report
from onnxq.report.explain import Explanation, explain_node
from onnxq.report.html import charts
from onnxq.report.html.activations import TensorFacts, statistics_of, tensors_of
from onnxq.report.html.settings import remade, settings_of
from onnxq.report.html.weights import WeightFacts, boxes_for, weights_of
from onnxq.report.subject import FUSED, QUANTIZED, Subject
from onnxq.report.table import Table, count, number, table
from onnxq.validation.layers import LayerError, LayerReport


@dataclass(frozen=True)
class LayerFacts:
    """One node of the float graph.

    Attributes:
        format: what it computes with: of its weight, else of its values; "float", "fused".
        tensors: names of those of its activations that the page shows.
    """

    explanation: Explanation
    error: LayerError | None
    weights: WeightFacts | None
    tensors: tuple[str, ...]
    format: str

    @property
    def name(self) -> str:
        return self.explanation.node


@dataclass(frozen=True)
class View:
    """One model on the page.

    Attributes:
        id: prefix of its ids.
        summary, settings: lines about it.
        recipe, command: what makes it again; "" where it carries none.
        notes: what a reader must know.
        tables: title → table: classes, Clips, barriers, learnables, float nodes.
        equalized: whether any of its channels were scaled.
        report: the ranking of its layers; None without data.
        curve: SQNR to expect with so many layers in float; see `charts.sensitivity_curve`.
    """

    id: str
    name: str
    summary: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]
    recipe: str
    command: str
    notes: tuple[str, ...]
    layers: tuple[LayerFacts, ...]
    tensors: tuple[TensorFacts, ...]
    tables: Mapping[str, Table]
    equalized: bool
    report: LayerReport | None
    curve: tuple[float, ...]


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
    statistics, lost = statistics_of(subject.model, reference, calibration)
    tensors = tensors_of(subject, statistics)
    errors = {each.name: each for each in report.layers} if report else {}
    shown = boxes_for(subject)
    layers = tuple(
        LayerFacts(
            explain_node(subject, node), errors.get(node.name),
            weights_of(subject, reference, node, shown),
            tuple(name for name in (*subject.data_of(node), *node.outputs) if name in tensors),
            _format(subject, node),
        )
        for node in subject.graph.nodes
    )  # fmt: skip
    notes = []
    if lost:
        few = ", ".join(lost[:2]) + ", …" * (len(lost) > 2)
        notes.append(
            f"{count(len(lost), 'tensor')} without a histogram, for scales that are no powers of "
            f"two: {few}"
        )
    if report and report.warning:
        notes.append(report.warning)
    shares = [each.share for each in report.layers] if report else []
    return View(
        prefix, subject.model.name, tuple(details_report.summary(subject.model, subject.details)),
        tuple(settings_of(subject)), *remade(reference.model if reference else None, subject.model),
        tuple(notes), layers, tuple(tensors.values()), tables_of(subject),
        any(each.explanation.equalized for each in layers), report,
        charts.sensitivity_curve(shares, report.sum_of_parts) if report else (),
    )  # fmt: skip


def _format(subject: Subject, node: Node) -> str:
    """What the node computes with, in a word."""
    becomes = subject.status(node).becomes
    if becomes != QUANTIZED:
        return becomes if becomes == FUSED else "float"
    weight = subject.weight(node)
    if weight is not None:
        return str(weight.format)
    names = [*node.outputs, *subject.data_of(node)]
    found = (subject.activations[name] for name in names if name in subject.activations)
    return next((str(each.format) for each in found), QUANTIZED)


def tables_of(subject: Subject) -> dict[str, Table]:
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
