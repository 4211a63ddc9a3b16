"""Scales for inputs that are quantized as the model runs, by the range that each run has.

Such a step follows the run, not the whole calibration: a channel that is large in a few runs costs
the others nothing, one that is large in each costs all of them. So the noise of an input is the
mean over runs of the range squared, and scales that suit static ranges may do harm.

For each input the candidates are s = (largest weight)^b / (size of the channel)^a, powers of two of
them (SmoothQuant, Xiao et al., 2023, has b = 1 − a); of these the one with the least noise at the
readers' output, that of the input and that of the weights together, is chosen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.statistics import Calibration
from onnxq.data.budget import WHOLE, Batching
from onnxq.equalization.candidates import bits
from onnxq.equalization.channel_factors import (
    counted_in,
    plan_factors,
    with_ones,
    with_products,
)
from onnxq.equalization.choose import (
    ROUNDED,
    Choice,
    EqualizationOptions,
    choose_classes,
    without_idle,
)
from onnxq.equalization.noise import ActivationTerm, NoiseModel, WeightTerm
from onnxq.equalization.runs import Extremes, observe
from onnxq.equalization.sensitivity import snap
from onnxq.equalization.sites import LinearSite
from onnxq.equalization.solve import Solution, decibels
from onnxq.model.graph import Graph
from onnxq.model.model import Model

Floats = NDArray[np.float64]
Feeds = Mapping[str, NDArray[Any]]

LOG2 = math.log(2)

STRENGTHS = np.linspace(0, 1, 9)
"""Powers of a channel's size that are tried."""

WEIGHT_POWERS = np.linspace(0, 0.5, 5)
"""Powers of its largest weight."""

PHASES = (0.0, 0.25, 0.5, 0.75)
"""What is added to log₂ s before it is rounded: a factor common to all channels costs nothing."""


@dataclass(frozen=True)
class RunTerm(ActivationTerm):
    """Noise of an activation whose step is that of each run."""

    highest: Floats
    lowest: Floats
    share: Floats

    def noise(self, sigma: Floats) -> float:
        """The mean over runs of the noise at the scales e^σ, of steps as large as half a range."""
        scale = np.exp(sigma[self.variables])
        width = (self.highest * scale).max(axis=1) - (self.lowest * scale).min(axis=1)
        return float(np.square(width) @ self.share / 4 * (self.gain / np.square(scale)).sum())


class _DenseWeight:
    """A weight's noise as a function of the scales of its inputs, those of its outputs fixed."""

    def __init__(self, term: WeightTerm, whole: NDArray[np.float32] | None) -> None:
        self._term, self._whole = term, whole
        self._buffer = None if whole is None else np.empty_like(whole)

    @classmethod
    def of(cls, term: WeightTerm) -> _DenseWeight:
        """In linear terms where all of its elements take part, which is much faster."""
        values = term.log_weight
        dense = values.ndim == 3 and len(values) == 1 and values.size
        return cls(term, np.exp(values[0]) if dense else None)

    def noise(self, sigma: Floats) -> float:
        """As `WeightTerm.noise`."""
        if self._whole is None or self._buffer is None or not self._term.per_channel:
            return self._term.noise(sigma)
        columns = self._term.columns[0]
        inverse = np.exp(-sigma[columns]).astype(np.float32)
        peaks = np.multiply(self._whole, inverse, out=self._buffer).max(axis=1)
        received = self._term.column_power[0] @ np.exp(2 * sigma[columns])
        return float(np.square(peaks.astype(np.float64)) @ self._term.row_gain * received)


def choose_by_run(
    model: Model,
    calibration: Calibration,
    feeds: Sequence[Feeds],
    options: EqualizationOptions,
    layers: Collection[str],
    batching: Batching = WHOLE,
) -> Choice:
    """Choose scales for the inputs of some layers, channel factors among them.

    Args:
        model: normalized.
        calibration: of this model; without feeds its ranges stand for one run.
        feeds: each as the model is going to run.
        layers: the nodes whose inputs and weights are quantized.
    """
    graph = Graph(model)
    plain = choose_classes(model, calibration, options, solving=False)
    factors = counted_in(calibration, plan_factors(plain.graph, plain.classes))
    factors = tuple(f for f in factors if any(node in layers for node, _ in f.readers))
    read = {graph.by_name[name].input(0) for name in layers}
    seen = observe(model, sorted(read), feeds, calibration, batching)
    plain = _searched(plain, seen, {}, layers)
    if not factors:
        return plain
    products = with_products(calibration, factors)
    choice = choose_classes(with_ones(model, factors), products, options, solving=False)
    choice = _searched(choice, seen, {f.name: f.tensor for f in factors}, layers)
    best = without_idle(replace(choice, original=model, factors=factors, plain=plain))
    gain = decibels(plain.expected_noise, best.expected_noise)
    return best if best.working and gain >= options.factors_worth else plain


def _searched(
    choice: Choice,
    seen: Mapping[str, Extremes],
    tensor_of: Mapping[str, str],
    layers: Collection[str],
) -> Choice:
    """The choice with searched scales in place of solved ones.

    Args:
        tensor_of: product of a channel factor → what is multiplied, whose extremes are known.
    """
    start = choice.solution.start
    sites = [site for site in choice.classes.linears if site.node.name in layers]
    names = {site.node.input(site.layout.data) for site in sites}
    known = {term.node: term for term in choice.noise.weights}
    weights: dict[str, WeightTerm] = {}
    for site in sites:
        name = site.node.name
        row_gain = known[name].row_gain * _softened(choice, site)
        weights[name] = replace(known[name], row_gain=row_gain)
    gains: dict[str, Floats] = {}
    for site in sites:
        name = site.node.input(site.layout.data)
        gain = _gain(choice, site, weights[site.node.name])
        gains[name] = gains[name] + gain if name in gains else gain
    terms = [
        _run_term(replace(term, gain=gains[term.tensor]), found, start)
        for term in choice.noise.activations
        if term.tensor in names
        and (found := seen.get(tensor_of.get(term.tensor, term.tensor))) is not None
        and found.size.size == term.variables.size
    ]
    noise = replace(choice.noise, weights=tuple(weights.values()), activations=tuple(terms))
    limited = {choice.variables.of.get(root, 0) for root in choice.variables.limits}
    exponents, taken = start.copy(), limited | {0}
    for term in terms:
        found = seen[tensor_of.get(term.tensor, term.tensor)]
        if taken.isdisjoint(term.variables.tolist()):
            _search(noise, term, found.size, exponents)
            taken |= set(term.variables.tolist())
    before, after = (noise.evaluate(each * LOG2) for each in (start, exponents))
    return replace(choice, noise=noise, solution=Solution(start, exponents, before, after))


def _softened(choice: Choice, site: LinearSite) -> Floats:
    """(outputs,): how much an error counts at each output, 1 where it is as loud as most.

    An output that is far louder than the others, as what makes an outlier channel is, says little
    in the norm behind: it counts by its error over its own power.
    """
    tensors = choice.calibration.tensors if choice.calibration else {}
    found = tensors.get(site.node.output)
    if found is None or found.channels != site.layout.outputs:
        return np.ones(site.layout.outputs)
    power = snap(found.variance)
    usual = max(float(np.median(power)), float(np.finfo(np.float32).tiny))
    return np.asarray(usual / np.maximum(power, usual))


def _gain(choice: Choice, site: LinearSite, term: WeightTerm) -> Floats:
    """(inputs,): how much an error in each input counts at the outputs, where σ is 0."""
    start, layout = choice.solution.start, site.layout
    weight = layout.to_output_major(choice.graph.value(layout.weight))[:, :, 0].astype(np.float64)
    rows, columns = np.exp2(-start[term.rows]), np.exp2(start[term.columns[0]])
    by_row: Floats = term.row_gain * np.square(rows)
    return snap(np.asarray(by_row @ np.square(weight) * np.square(columns)))


def _run_term(term: ActivationTerm, found: Extremes, start: Floats) -> RunTerm:
    """The term of an activation by the extremes of each run, where σ = 0 counts as 2^−start."""
    scale = np.exp2(-start[term.variables])
    return RunTerm(
        term.tensor, term.log_range, term.variables, term.gain,
        found.highest * scale, found.lowest * scale, found.share,
    )  # fmt: skip


def _search(noise: NoiseModel, term: RunTerm, size: Floats, exponents: Floats) -> None:
    """Put the best candidate for one input among the exponents, if any is better than none."""
    variables, start = term.variables, exponents.copy()
    readers = [w for w in noise.weights if not set(variables.tolist()).isdisjoint(w.columns.flat)]
    dense = [_DenseWeight.of(reader) for reader in readers]

    def cost(candidate: Floats) -> float:
        sigma = candidate * LOG2
        weights = sum(each.noise(sigma) for each in dense)
        rounded = ROUNDED * weights / noise.weight_divisor
        return rounded + term.noise(sigma) / noise.activation_divisor

    # All in the coordinates of the model as it is.
    weight = bits(_largest_weights(readers, start)[variables])
    reach = np.maximum(term.highest, -term.lowest) * np.exp2(start[variables])
    usual = np.sqrt(term.share @ np.square(reach))
    sizes = [bits(each) for each in (size, usual, reach.max(axis=0))]
    best, lowest = start, cost(start)
    for stat, a, b, phase in itertools.product(sizes, STRENGTHS, WEIGHT_POWERS, PHASES):
        wanted = b * weight - a * stat
        candidate = start.copy()
        candidate[variables] += np.rint(wanted - wanted.mean() + phase)
        if (found := cost(candidate)) < lowest:
            best, lowest = candidate, found
    exponents[:] = best


def _largest_weights(readers: Sequence[WeightTerm], start: Floats) -> Floats:
    """(variables,): the largest weight of what reads each."""
    largest = np.zeros(len(start))
    for reader in readers:
        peaks = np.exp(reader.scaled(start * LOG2))
        column = np.broadcast_to(reader.column, peaks.shape)
        np.maximum.at(largest, reader.columns.ravel()[column], peaks)
    return largest
