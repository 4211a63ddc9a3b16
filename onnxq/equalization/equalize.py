"""The stage: choose scales, apply them, prove that the float model still computes the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.statistics import Calibration
from onnxq.data.budget import WHOLE, Batching
from onnxq.equalization.apply import apply_scales
from onnxq.equalization.channel_factors import Factor, without_ones
from onnxq.equalization.choose import Choice, EqualizationOptions, choose, class_gains
from onnxq.equalization.clips import ClipRecord
from onnxq.equalization.groups import Group
from onnxq.equalization.prove import (
    REAL_TOLERANCE,
    Feeds,
    Proof,
    Reference,
    compare_outputs,
    run_reference,
)
from onnxq.equalization.sites import Barrier, scales_of
from onnxq.equalization.solve import decibels, exponents_of
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.operators import weight_layout
from onnxq.refusal import Refusal

OTHER_ORDER = 100.0
"""dB of SQNR that float outputs keep where only the order of their sums changed."""


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
        factors: tensors whose channels a Mul scales in front of layers that read them.
        exponents: tensor → log₂ s, broadcastable to the tensor.
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
    factors: tuple[str, ...]
    exponents: Mapping[str, NDArray[np.float64]]

    @property
    def changed(self) -> bool:
        return any(record.scaled for record in self.classes)


def equalize(
    model: Model,
    calibration: Calibration | None,
    feeds: Sequence[Feeds],
    options: EqualizationOptions | None = None,
    batching: Batching = WHOLE,
) -> tuple[Model, Equalization]:
    """Equalize a normalized model across its layers.

    Args:
        model: normalized.
        calibration: of this model; without one only the weights guide the scales.
        feeds: inputs for the proof.
        options: see `EqualizationOptions`.
        batching: how the proof runs.

    Returns:
        The scaled model, whose float outputs equal the original's (bit for bit with powers of
        two and exact Clip modes), and the record.

    Raises:
        UsageError: a Clip mode needs a calibration and there is none.
    """
    choice = choose(model, calibration, options or EqualizationOptions())
    return carry_out(choice, feeds, batching)


def carry_out(
    choice: Choice, feeds: Sequence[Feeds], batching: Batching = WHOLE
) -> tuple[Model, Equalization]:
    """Scale as chosen, prove it, and leave out what fails; see `equalize`."""
    options, graph, classes = choice.options, choice.graph, choice.classes
    exponents = exponents_of(choice.variables.of, choice.solution.change)
    scaled, added, factors = _scaled(choice, exponents)
    reference = run_reference(choice.original, feeds, batching=batching)
    proof = compare_outputs(reference, scaled)
    rolled_back: tuple[str, ...] = ()
    if not accepted(proof, options):
        exponents, rolled_back = _roll_back(choice, exponents, reference)
        scaled, added, factors = _scaled(choice, exponents)
        proof = compare_outputs(reference, scaled)
    if not accepted(proof, options):
        # Classes that pass one by one can still fail together: then none is scaled.
        rolled_back, exponents = tuple(group.tensors[0] for group in choice.groups), {}
        scaled, added, factors = _scaled(choice, exponents)
        proof = compare_outputs(reference, scaled)
    final = choice.solution.start.copy()
    for root, value in exponents.items():
        final[choice.variables.of[root]] += value
    after = choice.noise.evaluate(final * math.log(2)).sum()
    record = Equalization(
        options, _class_records(graph, Graph(scaled), choice, final),
        classes.barriers, choice.variables.clips,
        decibels(choice.solution.before.sum(), after), float(after), proof,
        added + len(factors), rolled_back, tuple(factor.tensor for factor in factors),
        {name: np.log2(scales_of(p, exponents)) for name, p in classes.patterns.items()},
    )  # fmt: skip
    return scaled, record


def _scaled(
    choice: Choice, exponents: Mapping[int, float]
) -> tuple[Model, int, tuple[Factor, ...]]:
    """The scaled model, the kernels that its Clips cost, and the factors that are not all 1."""
    model, added = apply_scales(choice.graph, choice.classes, exponents)
    model, factors = without_ones(model, choice.factors)
    return model, added, factors


def accepted(proof: Proof, options: EqualizationOptions) -> bool:
    """Whether the proof is what the options promise."""
    if options.relu6 in {"tie", "relu"}:
        return math.isfinite(proof.difference)
    if options.real_scales:
        return proof.difference <= REAL_TOLERANCE
    return proof.identical or (not options.exact and proof.sqnr >= OTHER_ORDER)


def _roll_back(
    choice: Choice, exponents: Mapping[int, float], reference: Reference
) -> tuple[dict[int, float], tuple[str, ...]]:
    """Find the classes that fail the proof by halving, level by level, and leave them out."""

    def passes(groups: Sequence[Group], level: Reference) -> bool:
        model, *_ = _scaled(choice, _only(exponents, groups))
        return accepted(compare_outputs(level, model), choice.options)

    def failing(groups: Sequence[Group], level: Reference, *, surely: bool = False) -> list[Group]:
        """Those of the groups that fail; `surely` says that together they do."""
        if not groups:
            return []
        if len(groups) == 1:
            return [] if passes(groups, level) else list(groups)
        if not surely and passes(groups, level):
            return []
        half = len(groups) // 2
        found = failing(groups[:half], level)
        # What makes the whole fail is in one half or in the other.
        found += failing(groups[half:], level, surely=not found)
        # Classes that pass apart may fail together; then the whole lot goes.
        return found or list(groups)

    kept = [group for group in choice.groups if any(root in exponents for root in group.roots)]
    failed: list[Group] = []
    for level in reference.levels:
        found = failing(kept, level)
        kept = [group for group in kept if group not in found]
        failed += found
    return _only(exponents, kept), tuple(group.tensors[0] for group in failed)


def _only(exponents: Mapping[int, float], groups: Sequence[Group]) -> dict[int, float]:
    return {root: exponents[root] for group in groups for root in group.roots if root in exponents}


def _class_records(
    graph: Graph, scaled: Graph, choice: Choice, final: NDArray[np.float64]
) -> tuple[ClassRecord, ...]:
    """What each class took: its gain is that of the terms it touches, over the whole noise."""
    records = []
    gains = class_gains(choice, final)
    for group, variables, gain in zip(choice.groups, choice.numbers, gains, strict=True):
        change = (final - choice.solution.start)[variables]
        records.append(
            ClassRecord(
                group.tensors, group.producers, group.consumers, len(variables),
                int(np.count_nonzero(change)), (float(change.min()), float(change.max())),
                max((weight_spread(graph, name) for name in group.producers), default=1.0),
                max((weight_spread(scaled, name) for name in group.producers), default=1.0),
                gain,
            )
        )  # fmt: skip
    return tuple(records)


def weight_ranges(graph: Graph, node_name: str) -> NDArray[np.float64]:
    """Largest magnitude of each output channel's weights (outputs,)."""
    node = graph.node_named(node_name)
    layout = weight_layout(graph, node) if node else None
    if layout is None or isinstance(layout, Refusal):
        return np.ones(1)
    weight = graph.constant(layout.weight)
    by_output = layout.to_output_major(np.asarray(weight, np.float64))
    ranges: NDArray[np.float64] = np.abs(by_output).max(axis=(1, 2))
    return ranges


def weight_spread(graph: Graph, node_name: str) -> float:
    """Widest over median channel range of a weight; 1 is perfectly even."""
    ranges = weight_ranges(graph, node_name)
    ranges = ranges[ranges > 0]
    return float(ranges.max() / np.median(ranges)) if ranges.size else 1.0
