"""Narrower ranges on trial: a gradient is a tangent, and only samples tell what a clip costs.

First each by itself: of all tensors that one alone is quantized, in the wider and in the narrower
range. Then all together, part by part of the outputs. Weights are floats meanwhile: what is tried
is not hidden by their errors, and no layer has to be settled for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.data.budget import WHOLE, Batching
from onnxq.data.gather import run_batches
from onnxq.data.tokens import NO_TOKENS, Tokens
from onnxq.formats.fit import fit_range
from onnxq.formats.parameters import Parameters
from onnxq.formats.scheme import Spec
from onnxq.gradients import Leaves
from onnxq.model.backward import sized_by_values
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.session import with_outputs
from onnxq.quantization.insert import insert
from onnxq.quantization.plan import Own, QuantizationPlan, Shared
from onnxq.quantization.weighed import Estimate, Weighed

Feeds = Mapping[str, NDArray[Any]]
Errors = Mapping[str, float]

FALLS = 0.9
"""What the error of the outputs must fall to where that tensor alone has the narrower range."""

PART_LOSS = 0.5
"""dB that a part of the outputs may lose where all of them together gain: measured on samples, it
is no more certain than that."""

PART_LOSS_ALONE = 3.0
"""The same where that tensor alone is quantized: the errors of others will hide more of it."""

MATTERS = 0.1
"""Share of the error of the worst part from which on that of another one counts."""

COUNTS = 1e-3
"""Error, in units of a part's variance, that counts in any case: the worst part may be hopeless, as
scores that hardly vary are, and that is no reason to spoil the boxes beside them."""


@dataclass(frozen=True)
class LeafOutputs:
    """What the float model gives at the leaves for some samples.

    Attributes:
        leaves: parts of the outputs, see `gradients.leaves`.
        feeds: the samples, in batches.
        values: (tensors of the leaves in their order) of each batch.
    """

    leaves: Leaves
    feeds: Sequence[Feeds]
    values: Sequence[Sequence[NDArray[Any]]]
    batching: Batching = WHOLE
    tokens: Tokens = NO_TOKENS

    def errors(self, model: Model) -> Errors:
        """Tensor of a leaf → mean squared error of another model there, in units of its variance.

        A tensor that the model does not have is not among them, nor is one whose shape follows from
        values: the boxes that a suppression keeps are others in another model.
        """
        names = self.leaves.tensors
        deviation = {name: leaf.deviation for leaf in self.leaves.parts for name in leaf.tensors}
        graph = Graph(model)
        sized = sized_by_values(graph)
        there = [name for name in names if name in graph.producers and name not in sized]
        if not there:
            return {}
        sums: dict[str, list[float]] = {name: [0.0, 0.0] for name in there}
        runs = _run(model, there, self.feeds, self.batching)
        for feeds, exact, found in zip(self.feeds, self.values, runs, strict=True):
            wanted = dict(zip(names, exact, strict=True))
            for name, values in zip(there, found, strict=True):
                if np.shape(values) != np.shape(wanted[name]):
                    sums.pop(name, None)
                if name not in sums:
                    continue
                square = np.square(np.subtract(values, wanted[name], dtype=np.float64))
                real = self.tokens.real(name, square.shape, feeds)
                kept = np.ones(()) if real is None else np.asarray(real, np.float64)
                weights = np.broadcast_to(kept, square.shape)
                sums[name][0] += float((square * weights).sum()) / deviation[name] ** 2
                sums[name][1] += float(weights.sum())
        return {name: total / max(count, 1.0) for name, (total, count) in sums.items()}


def leaf_outputs(
    model: Model,
    leaves: Leaves,
    feeds: Sequence[Feeds],
    batching: Batching = WHOLE,
    tokens: Tokens = NO_TOKENS,
) -> LeafOutputs:
    """Run the float model on samples."""
    values = list(_run(model, leaves.tensors, feeds, batching))
    return LeafOutputs(leaves, feeds, values, batching, tokens)


def _run(
    model: Model, names: Sequence[str], feeds: Sequence[Feeds], batching: Batching
) -> Iterator[list[Any]]:
    exposed = Model.adopt(with_outputs(model, names), model.source)
    return run_batches(exposed, names, feeds, optimize=False, batching=batching)


# --- each by itself --------------------------------------------------------------------------


def tried_alone(
    model: Model,
    plan: QuantizationPlan,
    weighed: Sequence[Weighed],
    spec: Spec,
    exact: LeafOutputs,
) -> tuple[Weighed, ...]:
    """The ranges, those on trial in the narrower or in the wider one."""

    def tried(each: Weighed) -> Weighed:
        lost = lost_alone(model, plan, each, spec, exact)
        return each.without_narrower(lost) if lost else each.with_narrower()

    return tuple(tried(each) if each.on_trial else each for each in weighed)


def lost_alone(
    model: Model, plan: QuantizationPlan, weighed: Weighed, spec: Spec, exact: LeafOutputs
) -> str:
    """What the narrower range of a tensor loses at the outputs where it alone, and what shares its
    scale, is quantized; "" where they gain.
    """
    errors: list[Errors] = []
    for candidate in (weighed.of(weighed.chosen), weighed.of(Estimate.GRADIENT)):
        parameters = fit_range(candidate.low, candidate.high, spec, plan.options.scales)
        only = _alone(Graph(model), plan, weighed.tensor, parameters)
        errors.append(exact.errors(insert(model, only)))
    wider, narrower = errors
    if sum(narrower.values()) >= FALLS * sum(wider.values()):
        return "its own error would not fall by a tenth on samples"
    lost = lost_part(wider, narrower, PART_LOSS_ALONE)
    return lost and f"{lost} with it alone"


def _alone(
    graph: Graph, plan: QuantizationPlan, leader: str, parameters: Parameters
) -> QuantizationPlan:
    """The plan, of one range only."""
    names = plan.sharing[leader]
    entries: dict[str, Own | Shared] = {
        name: Own(parameters) if name == leader else Shared(parameters, leader) for name in names
    }
    readers = frozenset(
        place
        for place in plan.readers
        if graph.by_name[place.node].inputs[place.position] in entries
    )
    return replace(activations_of(plan), activations=entries, readers=readers)


def activations_of(plan: QuantizationPlan) -> QuantizationPlan:
    """The plan, with weights and biases in float."""
    return replace(plan, weights={}, biases={}, tables=(), rows=(), stored={})


# --- all together ----------------------------------------------------------------------------


def lost_part(wider: Errors, narrower: Errors, allowed: float = PART_LOSS) -> str:
    """What narrower ranges lose at the outputs; "" for nothing.

    Args:
        allowed: what a part of the outputs may lose, in dB.
    """
    both = [name for name in wider if name in narrower and wider[name] > 0]
    if not both:
        return "the outputs could not be compared"
    least = min(MATTERS * max(narrower[name] for name in both), COUNTS)
    losses = {name: 10 * math.log10(max(narrower[name], least) / max(wider[name], least))
              for name in both}  # fmt: skip
    worst = max(both, key=losses.__getitem__)
    if losses[worst] > allowed:
        return f"{worst!r} would lose {losses[worst]:.1f} dB"
    before, after = (sum(each[name] for name in both) for each in (wider, narrower))
    return "" if after < before else "the outputs would be no better"
