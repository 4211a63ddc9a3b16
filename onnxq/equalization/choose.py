"""Choose the scales of a graph under one treatment of its saturating Clips; change nothing yet."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.statistics import Calibration
from onnxq.equalization.channel_factors import (
    Factor,
    counted_in,
    plan_factors,
    with_ones,
    with_products,
)
from onnxq.equalization.classes import find_classes
from onnxq.equalization.clips import Variables, choose_variables
from onnxq.equalization.derive import counted_along
from onnxq.equalization.groups import Group, joined_groups
from onnxq.equalization.intervals import Interval, intervals
from onnxq.equalization.noise import NoiseModel, build_noise_model
from onnxq.equalization.rounded import Rounded
from onnxq.equalization.sites import ScaleClasses
from onnxq.equalization.solve import Solution, UpperBounds, decibels, solve
from onnxq.equalization.starting_scales import starting_exponents
from onnxq.errors import UsageError
from onnxq.formats.scheme import REFERENCE, Scheme
from onnxq.model.graph import Graph, Node
from onnxq.model.model import Model
from onnxq.model.operators import is_product

KERNEL_WORTH = 1.0
"""dB of expected SQNR for which extra kernels are worth their time."""

UNTRIED_WORTH = 6.0
"""The same for channel factors that nobody tries on samples afterwards: one bit."""

FACTOR_WORTH = 0.05
"""dB of expected SQNR for which one channel factor is: they add up, and each costs little."""


ROUNDED = 0.4
"""Share of the weights' noise that rounding for their layer's output leaves of that to nearest."""


def _nothing(_graph: Graph, _calibration: Calibration) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class EqualizationOptions:
    """What the caller decides.

    Attributes:
        real_scales: real scales instead of powers of two.
        relu6: how a scale passes a saturating Clip, see `clips`.
        per_channel: whether the weights will be quantized per output channel.
        one_weight_scale: operators whose weights have one scale in any case.
        scheme: what the nodes will compute with.
        target: name of the machine that they will run on; "" where nobody said.
        exact: whether every bit must stay. A channel factor behind a layer can keep ONNX Runtime
            from fusing that layer as it did: then sums are in another order.
        factors_worth: dB of expected SQNR for which channel factors are put in, see
            `channel_factors`; infinity for none.
        weights_left: share of the weights' noise that is left once they are rounded for their
            layer's output. It counts where there are channel factors, which move noise from
            activations to weights.
    """

    real_scales: bool = False
    relu6: str = "auto"
    per_channel: bool = False
    one_weight_scale: frozenset[str] = frozenset()
    scheme: Scheme = REFERENCE
    target: str = ""
    exact: bool = True
    factors_worth: float = UNTRIED_WORTH
    weights_left: float = 1.0

    def by_channel(self, node: Node) -> bool:
        """Whether each output channel of the node's weight will have a scale."""
        return self.per_channel and node.op_type not in self.one_weight_scale


@dataclass(frozen=True)
class Choice:
    """Scales that the solver chose.

    Attributes:
        calibration: of the model in `graph`.
        graph, classes: what is scaled; the Clips among the classes as they will be treated.
        variables, groups, noise, solution: the problem and its solution.
        original: the model that it was chosen for: that of `graph` without factors.
        factors: those that `graph` has, all 1 there.
        plain: the choice without them; None where there are none.
    """

    options: EqualizationOptions
    calibration: Calibration | None
    graph: Graph
    classes: ScaleClasses
    variables: Variables
    groups: tuple[Group, ...]
    noise: NoiseModel
    solution: Solution
    original: Model
    factors: tuple[Factor, ...] = ()
    plain: Choice | None = None

    @property
    def expected_noise(self) -> float:
        """Of all layers together, each relative to the power of its output."""
        return float(self.solution.after.sum())

    @property
    def working(self) -> tuple[Factor, ...]:
        """The factors that are not all 1."""
        change = self.solution.change
        moved = {
            group.tensors[0]
            for group, members in zip(self.groups, self.numbers, strict=True)
            if change[members].any()
        }
        return tuple(factor for factor in self.factors if factor.freed in moved)

    @property
    def numbers(self) -> list[list[int]]:
        """The variables of each group."""
        return [[self.variables.of[root] for root in group.roots] for group in self.groups]


def choose(
    model: Model,
    calibration: Calibration | None,
    options: EqualizationOptions,
    rounded: Rounded = _nothing,
) -> Choice:
    """Solve, with channel factors where they are expected to pay.

    Args:
        model: normalized.
        calibration: of this model; without one only the weights guide the scales, and there are
            no factors.
        rounded: what the target rounds besides the inputs of layers.

    Raises:
        UsageError: a Clip mode needs a calibration and there is none.
    """
    plain = choose_classes(model, calibration, replace(options, weights_left=1.0), rounded)
    if calibration is None:
        return plain
    planned = plan_factors(plain.graph, plain.classes, options.one_weight_scale)
    wanted = counted_in(calibration, planned)
    if not wanted:
        return plain
    products = with_products(calibration, wanted)
    choice = choose_classes(with_ones(model, wanted), products, options, rounded)
    best = without_idle(replace(choice, original=model, factors=wanted, plain=plain))
    gain = decibels(plain.expected_noise, best.expected_noise)
    return best if best.working and gain >= options.factors_worth else plain


def without_idle(choice: Choice) -> Choice:
    """The choice in which classes of one product each, worth less than a kernel, stay as they are.

    Nothing else depends on the scales of such a class.
    """
    exponents, start = choice.solution.exponents.copy(), choice.solution.start
    products = {factor.freed for factor in choice.factors}
    for group, members, gain in zip(
        choice.groups, choice.numbers, class_gains(choice), strict=True
    ):
        if group.tensors[0] in products and gain < FACTOR_WORTH:
            exponents[members] = start[members]
    after = choice.noise.evaluate(exponents * math.log(2))
    return replace(choice, solution=replace(choice.solution, exponents=exponents, after=after))


def class_gains(choice: Choice, final: NDArray[np.float64] | None = None) -> tuple[float, ...]:
    """What each class alone adds to the expected SQNR, dB: the noise of the terms it touches, over
    the whole.

    Args:
        final: log₂ s of each variable; as chosen by default.
    """
    noise, start = choice.noise, choice.solution.start
    final = choice.solution.exponents if final is None else final
    total = noise.evaluate(final * math.log(2)).sum()
    gains = []
    for variables, terms in zip(choice.numbers, noise.terms_of(choice.numbers), strict=True):
        without = final.copy()
        without[variables] = start[variables]
        left, moved = (noise.evaluate(e * math.log(2), terms).sum() for e in (without, final))
        gains.append(decibels(total - moved + left, total))
    return tuple(gains)


def choose_classes(
    model: Model,
    calibration: Calibration | None,
    options: EqualizationOptions,
    rounded: Rounded = _nothing,
    *,
    solving: bool = True,
) -> Choice:
    """Solve with the treatment of saturating Clips asked for.

    `auto` takes ties that intervals prove, which cost nothing at run time, if a bound for each
    channel would bring less than `KERNEL_WORTH`.

    Args:
        model: normalized.
        calibration: of this model; without one only the weights guide the scales.
        solving: whether to look for scales; else all stay as they are.

    Raises:
        UsageError: a Clip mode needs a calibration and there is none.
    """
    graph = Graph(model)
    classes = find_classes(graph, clips_pass=options.relu6 != "skip")
    tensors = rounded(graph, calibration) if calibration else ()
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
        return _solve(graph, classes, calibration, options, variables, tensors, solving=solving)
    variables = choose_variables(classes, measured, "per-channel")
    exact = _solve(graph, classes, calibration, options, variables, tensors, solving=solving)
    if options.relu6 != "auto" or not classes.clips or not exact.solution.change.any():
        return exact
    variables = choose_variables(classes, intervals(graph, classes), "proven")
    proven = _solve(graph, classes, calibration, options, variables, tensors, solving=solving)
    worth = decibels(proven.expected_noise, exact.expected_noise)
    return proven if worth < KERNEL_WORTH else exact


def _solve(
    graph: Graph,
    classes: ScaleClasses,
    calibration: Calibration | None,
    options: EqualizationOptions,
    variables: Variables,
    rounded: Collection[str],
    *,
    solving: bool,
) -> Choice:
    """Solve in coordinates that do not depend on it."""
    unknown = _not_followed(graph, classes, calibration, rounded) if calibration else ()
    of = {root: number for root, number in variables.of.items() if root not in unknown}
    variables = replace(variables, of=of)
    pinned = frozenset(classes.free.tolist()) - variables.of.keys()
    start_of = starting_exponents(graph, classes, calibration, pinned)
    # What only zeros make has no scale worth choosing.
    free = [root for root in variables.of if root in start_of]
    of = {root: number for number, root in enumerate(free, start=1)}
    variables = replace(variables, of=of)
    start = np.zeros(1 + len(of))
    for root, number in of.items():
        start[number] = -start_of[root]
    limited = [root for root in variables.limits if root in of]
    numbers = np.array([of[root] for root in limited], np.int64)
    slack = np.array([variables.limits[root] for root in limited], np.float64)
    bounds = UpperBounds(numbers, slack + start[numbers] * math.log(2))
    noise = build_noise_model(
        graph, classes, of, calibration, {root: start_of[root] for root in free},
        per_channel=options.by_channel, scheme=options.scheme, rounded=rounded,
    )  # fmt: skip
    groups = joined_groups(classes, variables)
    members = [[of[root] for root in group.roots] for group in groups]
    if solving:
        solution = _solution(noise, start, bounds, members, options)
    else:
        now = noise.evaluate(start * math.log(2))
        solution = Solution(start, start, now, now)
    classes = replace(classes, clips=variables.sites)
    return Choice(
        options, calibration, graph, classes, variables, groups, noise, solution, graph.model
    )


def _not_followed(
    graph: Graph, classes: ScaleClasses, calibration: Calibration, rounded: Collection[str]
) -> frozenset[int]:
    """The roots whose scales would hide the range of a quantized operand of a product.

    The heads of an attention and their channels are two axes; values were counted along one.
    """
    found: set[int] = set()
    for name in rounded:
        statistics, pattern = calibration.tensors.get(name), classes.patterns.get(name)
        if statistics is None or pattern is None or counted_along(statistics, pattern.shape):
            continue
        if any(is_product(graph, use.node) for use in graph.consumers(name)):
            found.update(pattern.ravel().tolist())
    return frozenset(found)


def _solution(
    noise: NoiseModel,
    start: NDArray[np.float64],
    bounds: UpperBounds,
    groups: list[list[int]],
    options: EqualizationOptions,
) -> Solution:
    """Solve for what rounding leaves of the noise; told in all of it, as that of any choice."""
    left = replace(noise, weight_divisor=noise.weight_divisor / options.weights_left)
    solution = solve(left, start, bounds, groups=groups, real=options.real_scales)
    before, after = (noise.evaluate(e * math.log(2)) for e in (start, solution.exponents))
    return replace(solution, before=before, after=after)
