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
from onnxq.equalization.classes import Barrier, ScaleClasses, find_classes, scales_of
from onnxq.equalization.clips import ClipRecord, Variables, choose_variables
from onnxq.equalization.noise import NoiseModel, build_noise_model
from onnxq.equalization.prove import REAL_TOLERANCE, Feeds, Proof, compare_outputs
from onnxq.equalization.solve import exponents_of, solve
from onnxq.equalization.union import DisjointSets
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.operators import weight_layout


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
    variables = choose_variables(classes, calibration, options.relu6)
    classes = replace(classes, clips=variables.sites)
    groups = _groups(classes, variables)
    numbers = [[variables.of[root] for root in group.roots] for group in groups]
    noise = build_noise_model(
        graph, classes, variables.of, calibration, per_channel=options.per_channel
    )
    solution = solve(noise, variables.bounds, groups=numbers, real=options.real_scales)
    exponents = exponents_of(variables.of, solution)
    scaled, added = apply_scales(graph, classes, exponents)
    proof = compare_outputs(model, scaled, feeds)
    rolled_back: tuple[str, ...] = ()
    if not accepted(proof, options):
        exponents, rolled_back = _roll_back(graph, classes, groups, exponents, feeds, options)
        scaled, added = apply_scales(graph, classes, exponents)
        proof = compare_outputs(model, scaled, feeds)
    if not accepted(proof, options):
        # Classes that pass one by one can still fail together: then none is scaled.
        rolled_back, exponents = tuple(group.tensors[0] for group in groups), {}
        scaled, added = model, 0
        proof = compare_outputs(model, scaled, feeds)
    final = np.zeros(noise.variables)
    for root, value in exponents.items():
        final[variables.of[root]] = value
    after = noise.evaluate(final * math.log(2)).sum()
    record = Equalization(
        options, _class_records(graph, Graph(scaled), groups, numbers, noise, final),
        classes.barriers, variables.clips,
        10 * math.log10(solution.before.sum() / after) if after > 0 else 0.0,
        proof, added, rolled_back,
        {name: np.log2(scales_of(p, exponents)) for name, p in classes.patterns.items()},
    )  # fmt: skip
    return scaled, record


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


_Numbered = Sequence[Sequence[int]]


def _roll_back(
    graph: Graph,
    classes: ScaleClasses,
    groups: Sequence[_Group],
    exponents: Mapping[int, float],
    feeds: Sequence[Feeds],
    options: EqualizationOptions,
) -> tuple[dict[int, float], tuple[str, ...]]:
    """Find the classes that fail the proof by halving, and leave them out."""

    def passes(groups: Sequence[_Group]) -> bool:
        model, _ = apply_scales(graph, classes, _only(exponents, groups))
        return accepted(compare_outputs(graph.model, model, feeds), options)

    def failing(groups: Sequence[_Group]) -> list[_Group]:
        if not groups or passes(groups):
            return []
        if len(groups) == 1:
            return list(groups)
        half = len(groups) // 2
        found = failing(groups[:half]) + failing(groups[half:])
        # Classes that pass apart may fail together; then the whole lot goes.
        return found or list(groups)

    failed = failing([group for group in groups if any(root in exponents for root in group.roots)])
    names = {group.tensors for group in failed}
    kept = _only(exponents, [group for group in groups if group.tensors not in names])
    return kept, tuple(group.tensors[0] for group in failed)


def _only(exponents: Mapping[int, float], groups: Sequence[_Group]) -> dict[int, float]:
    return {root: exponents[root] for group in groups for root in group.roots if root in exponents}


def _class_records(
    graph: Graph,
    scaled: Graph,
    groups: Sequence[_Group],
    numbers: _Numbered,
    noise: NoiseModel,
    exponents: NDArray[np.float64],
) -> tuple[ClassRecord, ...]:
    records = []
    after = noise.evaluate(exponents * math.log(2)).sum()
    for group, variables in zip(groups, numbers, strict=True):
        values = exponents[list(variables)]
        trial = exponents.copy()
        trial[list(variables)] = 0.0
        without = noise.evaluate(trial * math.log(2)).sum()
        records.append(
            ClassRecord(
                group.tensors, group.producers, group.consumers, len(variables),
                int(np.count_nonzero(values)), (float(values.min()), float(values.max())),
                max((weight_spread(graph, name) for name in group.producers), default=1.0),
                max((weight_spread(scaled, name) for name in group.producers), default=1.0),
                10 * math.log10(without / after) if after > 0 and without > 0 else 0.0,
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
