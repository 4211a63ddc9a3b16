"""The stage: choose scales, apply them, prove that the float model still computes the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.statistics import Calibration
from onnxq.equalization.apply import apply_scales
from onnxq.equalization.canonical import canonical_exponents
from onnxq.equalization.classes import Barrier, ScaleClasses, find_classes, scales_of
from onnxq.equalization.clips import ClipRecord, Variables, choose_variables
from onnxq.equalization.intervals import Interval, intervals
from onnxq.equalization.noise import NoiseModel, build_noise_model
from onnxq.equalization.prove import (
    REAL_TOLERANCE,
    Feeds,
    Proof,
    Reference,
    compare_outputs,
    run_reference,
)
from onnxq.equalization.solve import Solution, UpperBounds, decibels, exponents_of, solve
from onnxq.equalization.union import DisjointSets
from onnxq.errors import UsageError
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.operators import weight_layout

KERNEL_WORTH = 1.0
"""dB of expected SQNR for which extra kernels are worth their time."""


@dataclass(frozen=True)
class EqualizationOptions:
    """What the caller decides.

    Attributes:
        real_scales: real scales instead of powers of two.
        relu6: how a scale passes a saturating Clip, see `clips`.
        per_channel: whether the weights will be quantized per output channel.
    """

    real_scales: bool = False
    relu6: str = "auto"
    per_channel: bool = False


@dataclass(frozen=True)
class ClassRecord:
    """One scale class, seen as a set of tensors whose channels are scaled together.

    Attributes:
        tensors: activations that carry the class.
        producers, consumers: weighted nodes whose rows, or columns, absorb the scales.
        channels: number of independent scales.
        scaled: how many of them are not 1.
        exponents: smallest and largest log₂ s.
        spread_before, spread_after: widest over median channel range of the weights, the worst
            of the producers.
        gain: what the class alone adds to the expected SQNR, dB.
    """

    tensors: tuple[str, ...]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    channels: int
    scaled: int
    exponents: tuple[float, float]
    spread_before: float
    spread_after: float
    gain: float


@dataclass(frozen=True)
class Equalization:
    """The record of one equalization.

    Attributes:
        classes: what was scaled.
        barriers: where scales are pinned, and why.
        clips: what was done with saturating Clips.
        expected_gain: of the weights and activations together, dB of SQNR.
        expected_noise: of all layers together, each relative to the power of its output.
        proof: float outputs before and after.
        kernels_added: kernels the float model runs more than before.
        rolled_back: tensors of classes that failed the proof.
        octaves: tensor → log₂ s, broadcastable to the tensor.
    """

    options: EqualizationOptions
    classes: tuple[ClassRecord, ...]
    barriers: tuple[Barrier, ...]
    clips: tuple[ClipRecord, ...]
    expected_gain: float
    expected_noise: float
    proof: Proof
    kernels_added: int
    rolled_back: tuple[str, ...]
    octaves: Mapping[str, NDArray[np.float64]]

    @property
    def changed(self) -> bool:
        return any(record.scaled for record in self.classes)


def equalize(
    model: Model,
    calibration: Calibration | None,
    feeds: Sequence[Feeds],
    options: EqualizationOptions | None = None,
) -> tuple[Model, Equalization]:
    """Equalize a normalized model across its layers.

    Args:
        model: normalized.
        calibration: of this model; without one only the weights guide the scales.
        feeds: inputs for the proof.
        options: see `EqualizationOptions`.

    Returns:
        The scaled model, whose float outputs equal the original's (bit for bit with powers of
        two and exact Clip modes), and the record.

    Raises:
        UsageError: a Clip mode needs a calibration and there is none.
    """
    options = options or EqualizationOptions()
    graph = Graph(model)
    classes = find_classes(graph, clips_pass=options.relu6 != "skip")
    choice = _choose(graph, classes, calibration, options)
    classes = replace(classes, clips=choice.variables.sites)
    exponents = exponents_of(choice.variables.of, choice.solution.change)
    scaled, added = apply_scales(graph, classes, exponents)
    reference = run_reference(model, feeds)
    proof = compare_outputs(reference, scaled)
    rolled_back: tuple[str, ...] = ()
    if not accepted(proof, options):
        exponents, rolled_back = _roll_back(
            graph, classes, choice.groups, exponents, reference, options
        )
        scaled, added = apply_scales(graph, classes, exponents)
        proof = compare_outputs(reference, scaled)
    if not accepted(proof, options):
        # Classes that pass one by one can still fail together: then none is scaled.
        rolled_back, exponents = tuple(group.tensors[0] for group in choice.groups), {}
        scaled, added = model, 0
        proof = compare_outputs(reference, scaled)
    final = choice.solution.start.copy()
    for root, value in exponents.items():
        final[choice.variables.of[root]] += value
    after = choice.noise.evaluate(final * math.log(2)).sum()
    record = Equalization(
        options, _class_records(graph, Graph(scaled), choice, final),
        classes.barriers, choice.variables.clips,
        decibels(choice.solution.before.sum(), after), float(after), proof, added, rolled_back,
        {name: np.log2(scales_of(p, exponents)) for name, p in classes.patterns.items()},
    )  # fmt: skip
    return scaled, record


@dataclass(frozen=True)
class _Choice:
    """Scales that the solver chose under one treatment of the saturating Clips."""

    variables: Variables
    groups: tuple[_Group, ...]
    noise: NoiseModel
    solution: Solution

    @property
    def numbers(self) -> list[list[int]]:
        """The variables of each group."""
        return [[self.variables.of[root] for root in group.roots] for group in self.groups]


def _choose(
    graph: Graph,
    classes: ScaleClasses,
    calibration: Calibration | None,
    options: EqualizationOptions,
) -> _Choice:
    """Solve with the treatment of saturating Clips asked for.

    `auto` takes ties that intervals prove, which cost nothing at run time, if a bound for each
    channel would bring less than `KERNEL_WORTH`.
    """
    measured = (
        {name: Interval(s.minimum.astype(np.float64), s.maximum.astype(np.float64))
         for name, s in calibration.tensors.items()}
        if calibration else {}
    )  # fmt: skip
    if options.relu6 in {"tie", "relu"}:
        if calibration is None:
            raise UsageError(
                f"--relu6 {options.relu6} needs to know what saturates",
                hint="give --calibration or --data",
            )
        variables = choose_variables(classes, measured, options.relu6)
        return _solve(graph, classes, calibration, options, variables)
    variables = choose_variables(classes, measured, "per-channel")
    exact = _solve(graph, classes, calibration, options, variables)
    if options.relu6 != "auto" or not classes.clips or not exact.solution.change.any():
        return exact
    variables = choose_variables(classes, intervals(graph, classes), "proven")
    proven = _solve(graph, classes, calibration, options, variables)
    worth = decibels(proven.solution.after.sum(), exact.solution.after.sum())
    return proven if worth < KERNEL_WORTH else exact


def _solve(
    graph: Graph,
    classes: ScaleClasses,
    calibration: Calibration | None,
    options: EqualizationOptions,
    variables: Variables,
) -> _Choice:
    """Solve in canonical coordinates."""
    pinned = frozenset(classes.free.tolist()) - variables.of.keys()
    canonical = canonical_exponents(graph, classes, calibration, pinned)
    # What only zeros make has no scale worth choosing.
    free = [root for root in variables.of if root in canonical]
    of = {root: number for number, root in enumerate(free, start=1)}
    variables = replace(variables, of=of)
    start = np.zeros(1 + len(of))
    for root, number in of.items():
        start[number] = -canonical[root]
    limited = [root for root in variables.limits if root in of]
    numbers = np.array([of[root] for root in limited], np.int64)
    slack = np.array([variables.limits[root] for root in limited], np.float64)
    bounds = UpperBounds(numbers, slack + start[numbers] * math.log(2))
    noise = build_noise_model(
        graph, classes, of, calibration, {root: canonical[root] for root in free},
        per_channel=options.per_channel,
    )  # fmt: skip
    groups = _groups(classes, variables)
    members = [[of[root] for root in group.roots] for group in groups]
    solution = solve(noise, start, bounds, groups=members, real=options.real_scales)
    return _Choice(variables, groups, noise, solution)


def accepted(proof: Proof, options: EqualizationOptions) -> bool:
    """Whether the proof is what the options promise."""
    if options.relu6 in {"tie", "relu"}:
        return math.isfinite(proof.difference)
    return proof.difference <= REAL_TOLERANCE if options.real_scales else proof.identical


@dataclass(frozen=True)
class _Group:
    """A scale class as people see it: the tensors whose channels share variables."""

    tensors: tuple[str, ...]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    roots: tuple[int, ...]


def _groups(classes: ScaleClasses, variables: Variables) -> tuple[_Group, ...]:
    """Join the classes that appear in one tensor; one group for each connected set."""
    sets = DisjointSets()
    free = sorted(variables.of)
    position = {root: index for index, root in enumerate(free, start=1)}
    sets.fresh(len(free))

    def joined(ids: NDArray[np.int64]) -> set[int]:
        return {position[i] for i in set(ids.ravel().tolist()) if i in position}

    for pattern in (*classes.patterns.values(), *(site.output_ids for site in classes.linears)):
        members = sorted(joined(pattern))
        for member in members[1:]:
            sets.union(members[0], member)

    found: dict[int, dict[str, list[Any]]] = {}

    def note(ids: NDArray[np.int64], kind: str, name: str) -> None:
        for member in {sets.find(i) for i in joined(ids)}:
            entry = found.setdefault(member, {"tensors": [], "producers": [], "consumers": []})
            entry[kind].append(name)

    for tensor, pattern in classes.patterns.items():
        note(pattern, "tensors", tensor)
    for site in classes.linears:
        note(site.output_ids, "producers", site.node.name)
        note(site.input_ids, "consumers", site.node.name)
    roots: dict[int, list[int]] = {}
    for root, index in position.items():
        roots.setdefault(sets.find(index), []).append(root)
    return tuple(
        _Group(
            tuple(entry["tensors"]), tuple(entry["producers"]), tuple(entry["consumers"]),
            tuple(roots[member]),
        )
        for member, entry in found.items()
    )  # fmt: skip


def _roll_back(
    graph: Graph,
    classes: ScaleClasses,
    groups: Sequence[_Group],
    exponents: Mapping[int, float],
    reference: Reference,
    options: EqualizationOptions,
) -> tuple[dict[int, float], tuple[str, ...]]:
    """Find the classes that fail the proof by halving, level by level, and leave them out."""

    def passes(groups: Sequence[_Group], level: Reference) -> bool:
        model, _ = apply_scales(graph, classes, _only(exponents, groups))
        return accepted(compare_outputs(level, model), options)

    def failing(groups: Sequence[_Group], level: Reference) -> list[_Group]:
        if not groups or passes(groups, level):
            return []
        if len(groups) == 1:
            return list(groups)
        half = len(groups) // 2
        found = failing(groups[:half], level) + failing(groups[half:], level)
        # Classes that pass apart may fail together; then the whole lot goes.
        return found or list(groups)

    kept = [group for group in groups if any(root in exponents for root in group.roots)]
    failed: list[_Group] = []
    for level in reference.levels:
        found = failing(kept, level)
        kept = [group for group in kept if group not in found]
        failed += found
    return _only(exponents, kept), tuple(group.tensors[0] for group in failed)


def _only(exponents: Mapping[int, float], groups: Sequence[_Group]) -> dict[int, float]:
    return {root: exponents[root] for group in groups for root in group.roots if root in exponents}


def _class_records(
    graph: Graph, scaled: Graph, choice: _Choice, final: NDArray[np.float64]
) -> tuple[ClassRecord, ...]:
    """What each class took: its gain is that of the terms it touches, over the whole noise."""
    noise, start = choice.noise, choice.solution.start
    total = noise.evaluate(final * math.log(2)).sum()
    touched = noise.terms_of(choice.numbers)
    records = []
    for group, variables, terms in zip(choice.groups, choice.numbers, touched, strict=True):
        change = (final - start)[variables]
        without = final.copy()
        without[variables] = start[variables]
        left, moved = (noise.evaluate(e * math.log(2), terms).sum() for e in (without, final))
        records.append(
            ClassRecord(
                group.tensors, group.producers, group.consumers, len(variables),
                int(np.count_nonzero(change)), (float(change.min()), float(change.max())),
                max((weight_spread(graph, name) for name in group.producers), default=1.0),
                max((weight_spread(scaled, name) for name in group.producers), default=1.0),
                decibels(total - moved + left, total),
            )
        )  # fmt: skip
    return tuple(records)


def weight_ranges(graph: Graph, node_name: str) -> NDArray[np.float64]:
    """Largest magnitude of each output channel's weights (outputs,)."""
    node = graph.node_named(node_name)
    layout = weight_layout(graph, node) if node else ""
    if isinstance(layout, str):
        return np.ones(1)
    weight = graph.constant(layout.weight)
    canonical = layout.to_canonical(np.asarray(weight, np.float64))
    ranges: NDArray[np.float64] = np.abs(canonical).max(axis=(1, 2))
    return ranges


def weight_spread(graph: Graph, node_name: str) -> float:
    """Widest over median channel range of a weight; 1 is perfectly even."""
    ranges = weight_ranges(graph, node_name)
    ranges = ranges[ranges > 0]
    return float(ranges.max() / np.median(ranges)) if ranges.size else 1.0
