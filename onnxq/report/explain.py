"""Why a node was, or was not, equalized, quantized and fused: facts in the order people ask."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from onnxq.calibration.statistics import Calibration
from onnxq.commands.inputs import as_model
from onnxq.commands.plan import NOTE, plan_of
from onnxq.errors import UsageError
from onnxq.formats.parameters import Parameters
from onnxq.model.graph import Node
from onnxq.model.model import Model
from onnxq.model.operators import QuantizedRule, operator_of
from onnxq.progress import SILENT, Progress
from onnxq.report.scale_facts import Fact, scale_facts, span
from onnxq.report.subject import Subject, look_at
from onnxq.report.table import Table, count, number, table

QUANTIZED_WORDS: Mapping[QuantizedRule, str] = MappingProxyType({
    QuantizedRule.WEIGHTED: "a quantized kernel of its own, which sums products",
    QuantizedRule.OWN: "a quantized kernel on some targets",
    QuantizedRule.SHARED: "passes quantized values on; input and output share one scale",
    QuantizedRule.FLOAT: "no quantized form",
})  # fmt: skip


@dataclass(frozen=True)
class Explanation:
    """What is to be said of one node.

    Attributes:
        node, operator: the node.
        asked: the name it was asked for by, where that is another.
        becomes: "quantized", "fused", "float" or "undecided".
        reason: why, "" for quantized.
        equalized: whether any channel of its input or output carries a scale.
        equalization, quantization, neighbors: facts.
        note: what a reader must know, "" for nothing.
    """

    node: str
    operator: str
    asked: str
    becomes: str
    reason: str
    equalized: bool
    equalization: tuple[Fact, ...]
    quantization: tuple[Fact, ...]
    neighbors: tuple[Fact, ...]
    note: str = ""


def explain(
    model: Model | str | os.PathLike[str],
    node: str,
    *,
    calibration: Calibration | str | os.PathLike[str] | None = None,
    target: str = "gpu",
    input_shapes: Sequence[str] = (),
    progress: Progress = SILENT,
) -> Explanation:
    """Explain a node of a quantized model, or what `quantize` would do to one of a float model.

    Args:
        node: its name, that of a tensor it computes, or of a batch norm folded into it.
        calibration: of the float model; else the ranges are those of a few random samples.
        target: for which a float model is planned.
        input_shapes: of the random samples, see `onnxq.commands.inputs.as_source`.

    Raises:
        UsageError: there is no such node; the hint names the nearest.
        ModelError, DataError: the model or the calibration is refused.
    """
    model = as_model(model)
    if not isinstance(node, str):
        raise UsageError(f"node must be the name of a node or a tensor, not {node!r:.40}")
    looked_at, note = look_at(model), ""
    found = looked_at.find(node)
    if looked_at.quantized is None:
        if calibration is None:
            note = f"{NOTE}; --calibration gives the real ones"
        plan = plan_of(
            model, looked_at.graph, target, progress, calibration=calibration,
            input_shapes=input_shapes,
        )  # fmt: skip
        looked_at = look_at(model, plan)
    asked = "" if node == found.name else node
    return explain_node(looked_at, found, asked=asked, note=note)


def explain_node(subject: Subject, node: Node, *, asked: str = "", note: str = "") -> Explanation:
    """Explain one node of a model that is looked at already."""
    status = subject.status(node)
    around = (*subject.data_of(node), *node.outputs)
    equalized = any(np.any(subject.exponents.get(name, 0)) for name in around)
    return Explanation(
        node.name, node.op_type, asked, status.becomes, status.reason, equalized,
        tuple(scale_facts(subject, node)), tuple(_quantization(subject, node)),
        tuple(_neighbors(subject, node)), note,
    )  # fmt: skip


# --- quantization ----------------------------------------------------------------------------


def _quantization(subject: Subject, node: Node) -> Iterator[Fact]:
    row = operator_of(node)
    if row is not None:
        yield Fact("rule", f"{row.quantized.value}: {QUANTIZED_WORDS[row.quantized]}")
    target = subject.plan.target.name if subject.plan else subject.details.target
    status = subject.status(node)
    text = " ".join(filter(None, (status.becomes, status.reason and f"({status.reason})")))
    yield Fact("becomes", f"{text}, for target {target}" if target else text)
    for name in (*subject.data_of(node), *node.outputs):
        if name in subject.activations:
            yield Fact(f"range of {name}", range_text(subject.activations[name]))
            yield from _candidates(subject, name)
        elif name in subject.by_run:
            yield Fact(f"range of {name}", "that of each run, as the model runs")
    weight = subject.weight(node)
    if weight is not None:
        yield Fact("weight", weight_text(weight))
    inside = [gone for gone, host in subject.folded.items() if host == node.name]
    if inside:
        yield Fact("folded into it", ", ".join(inside))
    fused = subject.fused.get(node.name, ())
    if fused:
        yield Fact("fused into it", ", ".join(fused))


def _candidates(subject: Subject, name: str) -> Iterator[Fact]:
    """Why a range is what it is, where gradients had a say."""
    for each in subject.record.get("ranges", ()):
        if each["tensor"] != name:
            continue
        for found in each["candidates"]:
            taken = ", taken" if found["estimate"] == each["chosen"] else ""
            yield Fact(
                f"candidate for {name}",
                f"[{number(found['low'])}, {number(found['high'])}], {found['estimate']}: "
                f"{100 * found['share']:.2f} % of the error at the outputs{taken}",
            )
        if each["why_not"]:
            yield Fact(f"narrower range of {name}", f"taken back: {each['why_not']}")


def range_text(parameters: Parameters) -> str:
    """Interval, scale and zero point of an activation."""
    low, high = parameters.range
    return (
        f"[{number(low)}, {number(high)}] in {parameters.format}, scale "
        f"{number(float(parameters.scale))}, zero point {int(parameters.zero_point)}"
    )


def weight_text(parameters: Parameters) -> str:
    """Type and scales of a weight."""
    scale = parameters.scale
    if parameters.per_tensor:
        return f"{parameters.format}, one scale for all: {number(float(scale))}"
    return (
        f"{parameters.format}, {count(scale.size, 'scale')} {parameters.granularity}: "
        f"{span(scale.astype(np.float64))}"
    )


# --- neighbors -------------------------------------------------------------------------------


def _neighbors(subject: Subject, node: Node) -> Iterator[Fact]:
    for name in subject.data_of(node):
        source = subject.graph.producers.get(name)
        text = "an input of the model" if source is None else _named(subject, source)
        yield Fact(f"reads {name}", text)
    for name in node.results:
        readers = [_named(subject, use.node) for use in subject.graph.consumers(name)]
        if name in subject.graph.outputs:
            readers.append("the caller: it is an output of the model")
        if readers:
            yield Fact(f"{name} is read by", "; ".join(dict.fromkeys(readers)))


def _named(subject: Subject, node: Node) -> str:
    return f"{node.name} ({node.op_type}, {subject.status(node).becomes})"


# --- showing it ------------------------------------------------------------------------------


def headline(each: Explanation) -> str:
    """The answer in one line."""
    asked = f"{each.asked} belongs to " if each.asked else ""
    scaled = "equalized" if each.equalized else "not equalized"
    reason = f" ({each.reason})" if each.reason else ""
    return f"{asked}{each.node} ({each.operator}): {each.becomes}{reason}; {scaled}"


def tables(each: Explanation) -> Iterator[Table]:
    """The facts, one table for each question."""
    for title in ("Equalization", "Quantization", "Neighbors"):
        facts: tuple[Fact, ...] = getattr(each, title.lower())
        yield table("About | What is so", [(f.label, f.text) for f in facts], title=title)


def document(model: object, each: Explanation) -> dict[str, Any]:
    """The document of `onnxq explain --json`."""
    facts = {
        kind: [{"about": fact.label, "text": fact.text} for fact in getattr(each, kind)]
        for kind in ("equalization", "quantization", "neighbors")
    }
    return {
        "model": model, "node": each.node, "operator": each.operator, "asked": each.asked,
        "becomes": each.becomes, "reason": each.reason, "equalized": each.equalized, **facts,
        "note": each.note,
    }  # fmt: skip
