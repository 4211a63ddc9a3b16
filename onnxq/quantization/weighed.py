"""Ranges weighed by what errors cost at the outputs.

What an error of a tensor costs behind its readers (`calibration.behind`) does not know how much
these matter: of the largest values of the input of a class convolution detections are made, those
of a stem are worth nothing. Gradients know (`gradients`), but a gradient is a tangent: in front of
a Softmax or a normalization it proposes ruinous clips. So the two decide together:

1. the range of least error behind the readers;
2. that of the third power, which weighs clipping more, or one that ends where least cost by the
   gradients does, if that is further out, where the gradients say that it costs less, however
   little: on other data more is clipped than on the samples;
3. that of least cost by the gradients where it is narrower and saves `WORTH_NARROWING`; such a one
   is tried on samples, by itself and with all the others.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxq.calibration.behind import Loss
from onnxq.calibration.costs import Costs, TensorCosts
from onnxq.calibration.ranges import Range
from onnxq.formats.fit import fit_range
from onnxq.model.graph import Graph
from onnxq.model.operators import QuantizedRule, operator_of
from onnxq.quantization.plan import QuantizationPlan
from onnxq.quantization.ranges import Ranges

WORTH_NARROWING = 0.01
"""What a narrower range must save, as a share of what all cost in the best of their candidates."""

NARROWEST = 0.3
"""Share of the values' ends to which gradients may narrow a range, unless the least error behind
the readers is nearer to zero: beyond that a tangent says nothing."""

HEAVIER = 3
"""The power that weighs clipping more."""


class Estimate(enum.Enum):
    """How a candidate came about."""

    BEHIND = "least squared error behind its readers"
    HEAVIER = "the same in the third power, which clips less"
    WIDER = "the outer ends of the first and the last one"
    GRADIENT = "least cost at the outputs by their gradients"


@dataclass(frozen=True)
class Candidate:
    """A range that was considered.

    Attributes:
        share: what its errors cost the outputs, to first order, over what those of all tensors
            cost in the best of their candidates.
    """

    estimate: Estimate
    low: float
    high: float
    share: float


@dataclass(frozen=True)
class Weighed:
    """Why the range of a tensor is what it is.

    Attributes:
        tensor: with all that share its scale.
        candidates: one for each estimate.
        chosen: whose range it has.
        on_trial: whether the gradients propose a narrower one, of which samples are to tell.
        why_not: why that was not taken; "" where it was, or none was proposed.
    """

    tensor: str
    candidates: tuple[Candidate, ...]
    chosen: Estimate
    on_trial: bool = False
    why_not: str = ""

    def with_narrower(self) -> Weighed:
        """In the range that was on trial."""
        return replace(self, chosen=Estimate.GRADIENT, on_trial=False)

    def without_narrower(self, reason: str) -> Weighed:
        """In the wider range after all."""
        return replace(self, on_trial=False, why_not=reason)

    @property
    def is_usual(self) -> bool:
        """Whether gradients had no say: nothing else was chosen, or proposed."""
        return self.chosen is Estimate.BEHIND and not self.why_not

    def of(self, estimate: Estimate) -> Candidate:
        return next(each for each in self.candidates if each.estimate is estimate)

    @property
    def range(self) -> Range:
        found = self.of(self.chosen)
        return found.low, found.high


def fixed_by(weighed: Sequence[Weighed]) -> dict[str, Range]:
    """Tensor → the range that it has for another reason than the error behind its readers."""
    return {each.tensor: each.range for each in weighed if each.chosen is not Estimate.BEHIND}


def clipped_by(weighed: Sequence[Weighed], plan: QuantizationPlan) -> dict[str, Range]:
    """Tensor → the range, of those whose range is narrower on purpose."""
    chosen = {each.tensor: each.range for each in weighed if each.chosen is Estimate.GRADIENT}
    return {name: found for leader, found in chosen.items()
            for name in plan.sharing.get(leader, ())}  # fmt: skip


def weigh(plan: QuantizationPlan, ranges: Ranges, costs: Costs) -> tuple[Weighed, ...]:
    """Choose among the candidates for each range of a plan that follows from them, the costliest
    first.

    Args:
        plan: made with these ranges.
        costs: of the tensors of the same model; ranges of tensors without any stay as they are.
    """
    groups = dict(_weighable(plan, ranges, costs))
    found = {name: _candidates(ranges, plan.sharing[name], loss) for name, loss in groups.items()}
    # Next to a few ranges that cost nearly all of it, the sum of the first ones, no other counts.
    total = sum(min(map(loss, found[name].values())) for name, loss in groups.items())
    if not total > 0:
        return ()
    weighed = [choose_range(name, found[name], loss, total) for name, loss in groups.items()]
    return tuple(sorted(weighed, key=lambda each: -each.of(Estimate.BEHIND).share))


def _weighable(plan: QuantizationPlan, ranges: Ranges, costs: Costs) -> Iterator[tuple[str, Loss]]:
    """Of the tensors whose range is that of the estimator: what a range costs at the outputs."""
    for leader, names in plan.sharing.items():
        known = [name for name in names if name in ranges.tensors]
        sources = _sources(ranges.graph, known)
        if not sources or any(name not in costs.tensors for name in sources):
            continue
        estimated = fit_range(*ranges.of(names), ranges.spec, plan.options.scales)
        # One that is fixed, or wider for another's sake, is not open to choice.
        if not any(name in ranges.fixed for name in names) and (
            estimated == plan.static[leader].parameters
        ):
            yield leader, cost_of([costs.tensors[name] for name in sources], ranges.spec.levels)


def _sources(graph: Graph, names: Sequence[str]) -> list[str]:
    """Those that are computed, not moved from others among them: each error is made there once."""
    found = []
    for name in names:
        maker = graph.producers.get(name)
        row = None if maker is None else operator_of(maker)
        moved = row is not None and row.quantized is QuantizedRule.SHARED
        if maker is None or not moved or set(names).isdisjoint(maker.inputs):
            found.append(name)
    return found


def cost_of(tensors: Sequence[TensorCosts], levels: int) -> Loss:
    """What a range costs at the outputs, for tensors that share it."""
    losses = [_cost(each, levels) for each in tensors]
    return lambda candidate: sum(loss(candidate) for loss in losses)


def _cost(tensor: TensorCosts, levels: int) -> Loss:
    def loss(candidate: Range) -> float:
        low, high = candidate
        clipping = max(float(tensor.clipping(low, high)), tensor.spread_clipping(low, high))
        return tensor.rounding((high - low) / (levels - 1)) + clipping

    return loss


def _candidates(ranges: Ranges, names: Sequence[str], cost: Loss) -> dict[Estimate, Range]:
    behind, (low, high) = ranges.of(names), ranges.bounds(names)
    inner = max(NARROWEST * low, behind[0]), min(NARROWEST * high, behind[1])
    gradient = ranges.least(names, cost, inner)
    return {
        Estimate.BEHIND: behind,
        Estimate.HEAVIER: ranges.least(names, ranges.loss(names, HEAVIER)),
        Estimate.WIDER: (min(behind[0], gradient[0]), max(behind[1], gradient[1])),
        Estimate.GRADIENT: gradient,
    }


def choose_range(name: str, found: Mapping[Estimate, Range], cost: Loss, total: float) -> Weighed:
    """Choose among the candidates for one range.

    Args:
        cost: of a range, by the gradients.
        total: what all ranges cost.
    """
    share = {estimate: cost(each) / total for estimate, each in found.items()}
    candidates = tuple(Candidate(each, *found[each], share[each]) for each in Estimate)
    chosen = min((Estimate.BEHIND, Estimate.HEAVIER, Estimate.WIDER), key=share.__getitem__)
    narrower = np.ptp(found[Estimate.GRADIENT]) < np.ptp(found[chosen])
    saves = share[chosen] - share[Estimate.GRADIENT] > WORTH_NARROWING
    return Weighed(name, candidates, chosen, on_trial=bool(narrower and saves))
