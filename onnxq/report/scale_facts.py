"""Why channels of a node carry scales or none: facts for `explain` and the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.equalization.sites import Barrier
from onnxq.model.graph import Node
from onnxq.model.operators import ScaleRule, operator_of
from onnxq.report.subject import Subject
from onnxq.report.table import count, number

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


@dataclass(frozen=True)
class Fact:
    """One line: what it is about, and what is so."""

    label: str
    text: str


def scale_facts(subject: Subject, node: Node) -> Iterator[Fact]:
    row = operator_of(node)
    if row is None:
        yield Fact("rule", f"{node.op_type} has no row in the operator table: scales stop here")
    else:
        yield Fact("rule", f"{row.scale.value}: {SCALE_WORDS[row.scale]}")
    names = [("input", name) for name in subject.data_of(node)]
    names += [("output", name) for name in node.results]
    for place, name in names:
        yield Fact(f"{place} {name}", _scales(subject, name))
    yield from _class_facts(subject, node)
    for clip in _recorded(subject, "clips"):
        if clip.get("node") == node.name:
            yield Fact("saturating", f"{clip['mode']} over {count(clip['channels'], 'channel')}")
    centered = {name: subject.offsets[name] for _, name in names if name in subject.offsets}
    for name, offset in centered.items():
        yield Fact("centered", f"{span(offset)} subtracted from {name}")
    if (why := subject.record.get("not_centered", {}).get(node.name)) is not None:
        yield Fact("not centered", str(why))


def _scales(subject: Subject, name: str) -> str:
    """Whether a tensor carries scales, and if not, why."""
    exponents = subject.exponents.get(name)
    if exponents is not None and np.any(exponents):
        scaled = int(np.count_nonzero(exponents))
        factors = f"2^{span(exponents[exponents != 0])}"
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


def span(values: NDArray[np.float64]) -> str:
    """Smallest and largest value, or the one that all have."""
    low, high = float(np.min(values)), float(np.max(values))
    return f"{low:.3g}" if low == high else f"{low:.3g}…{high:.3g}"
