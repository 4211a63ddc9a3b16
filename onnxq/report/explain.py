"""Why a node was, or was not, equalized, quantized and fused: facts in the order people ask."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.statistics import Calibration
from onnxq.commands.inputs import as_model
from onnxq.commands.plan import NOTE, plan_of
from onnxq.equalization.classes import Barrier
from onnxq.formats.parameters import Parameters
from onnxq.model.graph import Node
from onnxq.model.model import Model
from onnxq.model.operators import QuantizedRule, ScaleRule, operator_of
from onnxq.progress import SILENT, Progress
from onnxq.report.subject import Subject, look_at
from onnxq.report.table import Table, count, number, table

SCALE_WORDS: Mapping[ScaleRule, str] = MappingProxyType({
    ScaleRule.LINEAR: "its weight takes up the scales of its input and gives any to its output",
    ScaleRule.AFFINE: "its scale and bias give any scale to its output; its input stays as it is",
    ScaleRule.BATCH_NORM: "its parameters take up the scales of its input and give any others",
    ScaleRule.HOMOGENEOUS: "scales pass, along every axis it does not mix",
    ScaleRule.CLIP: "scales pass if its bounds move along",
    ScaleRule.TIE: "its operands must carry the same scale",
    ScaleRule.PRODUCT: "the scales of its operands multiply",
    ScaleRule.MOVE: "scales move with the elements",
    ScaleRule.INVARIANT: "its output does not depend on the scale",
    ScaleRule.OBSERVE: "the values do not matter",
    ScaleRule.BARRIER: "scales stop here",
})  # fmt: skip
"""What an operator does to a channel scale, for people."""

QUANTIZED_WORDS: Mapping[QuantizedRule, str] = MappingProxyType({
    QuantizedRule.WEIGHTED: "a quantized kernel of its own, which sums products",
    QuantizedRule.OWN: "a quantized kernel on some targets",
    QuantizedRule.SHARED: "passes quantized values on; input and output share one scale",
    QuantizedRule.FLOAT: "no quantized form",
})  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """One line: what it is about, and what is so."""

    label: str
    text: str


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
        tuple(_equalization(subject, node)), tuple(_quantization(subject, node)),
        tuple(_neighbors(subject, node)), note,
    )  # fmt: skip


# --- equalization ----------------------------------------------------------------------------


def _equalization(subject: Subject, node: Node) -> Iterator[Fact]:
    row = operator_of(node)
    if row is None:
        yield Fact("rule", f"{node.op_type} has no row in the operator table: scales stop here")
    else:
        yield Fact("rule", f"{row.scale.value}: {SCALE_WORDS[row.scale]}")
    names = [("input", name) for name in subject.data_of(node)]
    names += [("output", name) for name in node.outputs if name]
    for place, name in names:
        yield Fact(f"{place} {name}", _scales(subject, name))
    yield from _class_facts(subject, node)
    for clip in _recorded(subject, "clips"):
        if clip.get("node") == node.name:
            yield Fact("saturating", f"{clip['mode']} over {count(clip['channels'], 'channel')}")
    centered = {name: subject.offsets[name] for _, name in names if name in subject.offsets}
    for name, offset in centered.items():
        yield Fact("centered", f"{_span(offset)} subtracted from {name}")
    if (why := subject.record.get("not_centered", {}).get(node.name)) is not None:
        yield Fact("not centered", str(why))


def _scales(subject: Subject, name: str) -> str:
    """Whether a tensor carries scales, and if not, why."""
    exponents = subject.exponents.get(name)
    if exponents is not None and np.any(exponents):
        scaled = int(np.count_nonzero(exponents))
        factors = f"2^{_span(exponents[exponents != 0])}"
        return f"{scaled:,} of {count(exponents.size, 'channel')} scaled by {factors}"
    pattern = subject.classes.patterns.get(name)
    if pattern is None:
        return "no scale: it is no float32 activation of known rank"
    if not np.any(pattern):
        stops = [f"{each.node} ({each.op_type}): {each.reason}" for each in barriers(subject, name)]
        if name in subject.graph.inputs:
            stops.insert(0, "it is an input of the model")
        return f"no scale can enter: {'; '.join(stops) or 'it is pinned'}"
    free = len(set(pattern.ravel().tolist()) - {0})
    what = f"{count(free, 'scale')} free"
    if subject.quantized is None and not subject.exponents:
        return f"{what}; onnxq equalize chooses them"
    if not subject.record and not subject.exponents:
        return f"{what}; whether another tool chose any is not recorded"
    if subject.record.get("equalization", 0) is None:
        return f"{what}; quantized with --no-equalize"
    rolled = set((subject.record.get("equalization") or {}).get("rolled_back", ()))
    family = [each["tensors"] for each in _recorded(subject, "classes") if name in each["tensors"]]
    if rolled & {name, *(tensors[0] for tensors in family)}:
        return f"{what}, but rolled back: with them the proof failed"
    return f"{what}, all left at 1: others would not lower the expected noise"


def barriers(subject: Subject, tensor: str) -> tuple[Barrier, ...]:
    """What pins a tensor's scales: the barriers that its scales would reach.

    Scales spread from tensor to tensor through every node that neither has a weight nor is a
    barrier itself.
    """
    found: list[Barrier] = []
    seen, stack = {tensor}, [tensor]
    while stack:
        stops, ways = subject.scale_paths.get(stack.pop(), ((), ()))
        found += stops
        for reached in ways:
            new = [name for name in reached if name not in seen]
            seen.update(new)
            stack += new
    return tuple(dict.fromkeys(found))


def _class_facts(subject: Subject, node: Node) -> Iterator[Fact]:
    """The scale classes that the node makes or takes up, as recorded when they were scaled."""
    for each in _recorded(subject, "classes"):
        roles = [role for role, key in (("makes it", "producers"), ("takes it up", "consumers"))
                 if node.name in each.get(key, ())]  # fmt: skip
        if not roles or not each["tensors"]:
            continue
        yield Fact(
            f"class of {each['tensors'][0]}",
            f"{' and '.join(roles)}; {each['scaled']:,} of {count(each['channels'], 'channel')} "
            f"scaled, weight spread {number(each['spread_before'], 3)} → "
            f"{number(each['spread_after'], 3)}, gain {each['gain']:.1f} dB; shared by "
            f"{', '.join(dict.fromkeys((*each['producers'], *each['consumers'])))}",
        )


def _recorded(subject: Subject, kind: str) -> list[dict[str, Any]]:
    equalization = subject.record.get("equalization") or {}
    return [each for each in equalization.get(kind, []) if isinstance(each, dict)]


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
        f"{_span(scale.astype(np.float64))}"
    )


# --- neighbors -------------------------------------------------------------------------------


def _neighbors(subject: Subject, node: Node) -> Iterator[Fact]:
    for name in subject.data_of(node):
        source = subject.graph.producers.get(name)
        text = "an input of the model" if source is None else _named(subject, source)
        yield Fact(f"reads {name}", text)
    for name in node.outputs:
        readers = [_named(subject, use.node) for use in subject.graph.consumers(name)]
        if name in subject.graph.outputs:
            readers.append("the caller: it is an output of the model")
        if readers:
            yield Fact(f"{name} is read by", "; ".join(dict.fromkeys(readers)))


def _named(subject: Subject, node: Node) -> str:
    return f"{node.name} ({node.op_type}, {subject.status(node).becomes})"


def _span(values: NDArray[np.float64]) -> str:
    low, high = float(np.min(values)), float(np.max(values))
    return f"{low:.3g}" if low == high else f"{low:.3g}…{high:.3g}"


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
