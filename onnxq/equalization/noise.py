"""The expected quantization noise of a graph as a function of its scales.

With σ_i the log scale of output channel i, τ_j that of input channel j and Δ the step of the int8
weight, the weight noise at the network's output is Δ² Σ_i G_i e^{−2σ_i} Σ_j E[x_j²] e^{2τ_j} / 12,
where Δ = max_ij |W_ij| e^{σ_i − τ_j} / 127; the noise of a quantized activation is
Δ_T² Σ_j G_j e^{−2τ_j} / 12 with Δ_T = max_j R_j e^{τ_j} / 127. G is the sensitivity of the output
to the channel: squared weights carried backwards. Each term is a posynomial in the scales, so the
total is convex in the log scales (a geometric program). Data-free equalization (Nagel et al.,
2019) is the special case of two layers without activations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.statistics import Calibration, TensorStatistics
from onnxq.equalization.classes import LinearSite, ScaleClasses
from onnxq.model.graph import Graph
from onnxq.model.operators import ScaleRule, clip_bounds, kernel_output, operator_of

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

LEVELS = 127.0
SHARPNESS = 24.0
"""Exponent p of the p-norm that stands for the maximum while descending."""

SILENT = 1e-4
"""Least power of a channel, as a share of what the weights before it suggest."""

_EMPTY = -80.0
"""Log magnitude that stands for zero weights and silent channels."""


@dataclass(frozen=True)
class WeightTerm:
    """Noise of one quantized weight.

    Attributes:
        log_weight: (outputs, inputs per group), log of the largest tap of each weight.
        rows: (outputs,), variable of each output channel.
        columns: (outputs, inputs per group), variable of each input channel.
        row_gain: (outputs,), sensitivity G_i.
        column_power: (groups, inputs per group), taps · E[x_j²].
        column_variables: (groups, inputs per group).
    """

    node: str
    log_weight: NDArray[np.float32]
    rows: Indices
    columns: Indices
    row_gain: Floats
    column_power: Floats
    column_variables: Indices

    def shifted(self, sigma: Floats) -> WeightTerm:
        """The term of the weight once it has taken the scales e^σ."""
        step = sigma[self.rows][:, None] - sigma[self.columns]
        return replace(
            self,
            log_weight=self.log_weight + step.astype(np.float32),
            row_gain=self.row_gain * np.exp(-2 * sigma[self.rows]),
            column_power=self.column_power * np.exp(2 * sigma[self.column_variables]),
        )


@dataclass(frozen=True)
class ActivationTerm:
    """Noise of one quantized activation: (channels,) log ranges, variables and sensitivities."""

    tensor: str
    log_range: Floats
    variables: Indices
    gain: Floats

    def shifted(self, sigma: Floats) -> ActivationTerm:
        """The term of the activation once it has taken the scales e^σ."""
        step = sigma[self.variables]
        return replace(self, log_range=self.log_range + step, gain=self.gain * np.exp(-2 * step))


@dataclass(frozen=True)
class NoiseModel:
    """All terms; variable 0 is the pinned class."""

    variables: int
    weights: tuple[WeightTerm, ...]
    activations: tuple[ActivationTerm, ...]
    per_channel: bool

    def shifted(self, sigma: Floats) -> NoiseModel:
        """The same noise as a function of the scales still to come, after e^σ."""
        return replace(
            self,
            weights=tuple(term.shifted(sigma) for term in self.weights),
            activations=tuple(term.shifted(sigma) for term in self.activations),
        )

    def evaluate(self, sigma: Floats) -> Floats:
        """Noise of every term (weights, then activations) with hard maxima; (terms,)."""
        return np.array(
            [weight_noise(term, sigma, self.per_channel, None) for term in self.weights]
            + [activation_noise(term, sigma, None) for term in self.activations]
        )

    def gradient(self, sigma: Floats) -> tuple[float, Floats]:
        """Smoothed total and its gradient with respect to σ (variables,)."""
        gradient = np.zeros(self.variables)
        total = sum(
            weight_noise(term, sigma, self.per_channel, gradient) for term in self.weights
        ) + sum(activation_noise(term, sigma, gradient) for term in self.activations)
        gradient[0] = 0.0
        return float(total), gradient


def weight_noise(
    term: WeightTerm, sigma: Floats, per_channel: bool, gradient: Floats | None
) -> float:
    """Noise of one weight; adds its derivative to `gradient`, and then uses the soft maximum."""
    groups, inputs = len(term.column_power), term.log_weight.shape[1]
    power = term.column_power * np.exp(2 * sigma[term.column_variables])
    received = np.repeat(power.sum(axis=1), len(term.rows) // groups)
    row = sigma[term.rows]
    scaled = term.log_weight - sigma.astype(np.float32)[term.columns]
    peak = scaled.max(axis=1) + row
    if not per_channel:
        peak = np.broadcast_to(peak.max(), peak.shape)
    if gradient is None:
        return float(np.sum(np.exp(2 * (peak - row)) * term.row_gain * received)) / _SCALE
    # Only weights near the peak weigh in the soft maximum: few, so the exponentials are cheap.
    near = np.flatnonzero(scaled > (peak - row - _REACH).astype(np.float32)[:, None])
    near_row = near // inputs
    share = np.exp(SHARPNESS * (scaled.ravel()[near] + row[near_row] - peak[near_row]))
    mass = np.bincount(near_row, share, len(row))
    if not per_channel:
        mass = np.broadcast_to(mass.sum(), mass.shape)
    row_noise = np.exp(2 * (peak - row + np.log(mass) / SHARPNESS)) * term.row_gain * received
    row_noise /= _SCALE
    total = float(row_noise.sum())
    pull = share / mass[near_row] * (row_noise[near_row] if per_channel else total)
    np.add.at(gradient, term.rows, 2 * (np.bincount(near_row, pull, len(row)) - row_noise))
    np.add.at(gradient, term.columns.ravel()[near], -2 * pull)
    per_group = (row_noise / np.maximum(received, 1e-300)).reshape(groups, -1).sum(axis=1)
    np.add.at(gradient, term.column_variables.ravel(), (2 * per_group[:, None] * power).ravel())
    return total


_REACH = 0.7
"""Distance from the peak, in log magnitude, beyond which e^(−SHARPNESS·distance) is nothing."""

_SCALE = 12 * LEVELS**2


def activation_noise(term: ActivationTerm, sigma: Floats, gradient: Floats | None) -> float:
    """Noise of one activation, with the same use of `gradient`."""
    values = sigma[term.variables]
    scaled = term.log_range + values
    peak = scaled.max()
    spread = term.gain * np.exp(-2 * values)
    if gradient is None:
        return float(np.exp(2 * peak) * spread.sum()) / _SCALE
    share = np.exp(SHARPNESS * (scaled - peak))
    mass = share.sum()
    noise = np.exp(2 * (peak + np.log(mass) / SHARPNESS)) * spread / _SCALE
    total = float(noise.sum())
    np.add.at(gradient, term.variables, 2 * (total * share / mass - noise))
    return total


# --- building it -----------------------------------------------------------------------------


def build_noise_model(
    graph: Graph,
    classes: ScaleClasses,
    variable_of: Mapping[int, int],
    calibration: Calibration | None,
    *,
    per_channel: bool,
) -> NoiseModel:
    """Write down the noise of every weighted node and, given a calibration, of its inputs.

    Args:
        variable_of: class root → variable; roots that are absent are pinned (variable 0).
        per_channel: whether weights will be quantized per output channel.
    """
    lookup = np.zeros(1 + int(max([0, *classes.free.tolist()])), np.int64)
    for root, variable in variable_of.items():
        lookup[root] = variable
    tensors = calibration.tensors if calibration else {}
    powers = _input_powers(graph, classes, tensors)
    gains = _sensitivities(graph, classes, tensors, powers)
    weights = [
        _weight_term(graph, site, lookup, gains, powers[site.node.name]) for site in classes.linears
    ]
    activations = []
    readers: dict[str, list[LinearSite]] = {}
    for site in classes.linears:
        readers.setdefault(site.node.input(site.layout.data), []).append(site)
    for tensor, sites in readers.items():
        statistics, variables = tensors.get(tensor), lookup[sites[0].input_ids]
        if statistics is not None and np.any(variables):
            bound = _channels(np.maximum(-statistics.minimum, statistics.maximum), sites[0])
            bound = np.maximum(bound, np.sqrt(SILENT * powers[sites[0].node.name]))
            gain = np.sum([gains.at_input[site.node.name] for site in sites], axis=0)
            activations.append(ActivationTerm(tensor, _log(bound), variables, gain))
    return NoiseModel(
        1 + max([0, *variable_of.values()]), tuple(weights), tuple(activations), per_channel
    )


def input_gains(graph: Graph, classes: ScaleClasses, calibration: Calibration) -> dict[str, Floats]:
    """Tensor → how much an error in each of its channels matters where weights read it."""
    powers = _input_powers(graph, classes, calibration.tensors)
    gains = _sensitivities(graph, classes, calibration.tensors, powers)
    result: dict[str, Floats] = {}
    for site in classes.linears:
        tensor = site.node.input(site.layout.data)
        result[tensor] = result.get(tensor, 0.0) + gains.at_input[site.node.name]
    return result


@dataclass(frozen=True)
class _Sensitivities:
    """G of each weighted node's outputs and inputs, relative to the power of its output.

    So the noise of each layer counts against its own signal: products of many layers' squared
    weights order the channels of one layer well, but say little about how layers compare.
    """

    at_output: Mapping[str, Floats]
    at_input: Mapping[str, Floats]


def _sensitivities(
    graph: Graph,
    classes: ScaleClasses,
    tensors: Mapping[str, TensorStatistics],
    powers: Mapping[str, Floats],
) -> _Sensitivities:
    """Carry squared weights backwards, class by class (mean-field: noises are independent)."""
    by_class: dict[int, float] = {}
    at_output: dict[str, Floats] = {}
    at_input: dict[str, Floats] = {}
    for site in reversed(classes.linears):
        # Pinned channels count 1: anything taken from the classes would move with their scales.
        outputs = np.array([by_class.get(int(i), 1.0) if i else 1.0 for i in site.output_ids])
        squared = np.square(_canonical(graph, site)).sum(axis=2)
        received = np.bincount(
            site.layout.input_index().ravel(), (squared * outputs[:, None]).ravel(),
            site.layout.inputs,
        )  # fmt: skip
        expected = (squared * powers[site.node.name][site.layout.input_index()]).sum(axis=1)
        signal = max(_signal(graph, site, tensors, expected, outputs), 1e-30)
        at_output[site.node.name] = np.maximum(outputs / signal, 1e-30)
        at_input[site.node.name] = received / signal
        passed = received * _alive(graph, site, tensors)
        for root, value in zip(site.input_ids.tolist(), passed.tolist(), strict=True):
            if root:
                by_class[root] = by_class.get(root, 0.0) + value
    return _Sensitivities(at_output, at_input)


def _signal(
    graph: Graph,
    site: LinearSite,
    tensors: Mapping[str, TensorStatistics],
    expected: Floats,
    gain: Floats,
) -> float:
    """Power of the node's output, weighted by the sensitivity of its channels.

    Measured after the activation where there is a calibration: neighbouring pixels are alike, so
    a high-pass filter's output is far weaker than its weights and inputs suggest.
    """
    statistics = tensors.get(kernel_output(graph, site.node))
    if statistics is not None and statistics.channels == site.layout.outputs:
        return float(gain @ statistics.variance)
    return float(gain @ expected)


def _alive(graph: Graph, site: LinearSite, tensors: Mapping[str, TensorStatistics]) -> Floats:
    """Share of each input channel's values that let the noise of what came before through.

    A value at zero behind a Relu, or at the bound of a Clip, passes none.
    """
    data = site.node.input(site.layout.data)
    statistics = tensors.get(data)
    if statistics is None or statistics.channels != site.layout.inputs:
        return np.ones(site.layout.inputs)
    alive = 1 - statistics.share_of(0.0)
    producer = graph.producers.get(data)
    row = operator_of(producer) if producer else None
    clips = row is not None and row.scale is ScaleRule.CLIP
    bounds = clip_bounds(graph, producer) if producer and clips else None
    if bounds and math.isfinite(bounds[1]) and bounds[1] > 0:
        alive = alive - statistics.share_of(bounds[1])
    return np.clip(alive, 1e-3, 1.0)


def _input_powers(
    graph: Graph, classes: ScaleClasses, tensors: Mapping[str, TensorStatistics]
) -> dict[str, Floats]:
    """Weighted node → E[x²] of its input channels, measured, or carried forward through weights.

    What the weights alone suggest, with inputs of power 1, also bounds the measured power from
    below: a channel that was silent during calibration may wake. Either follows the scales of
    the graph exactly, so an equalized model has the same noise as before.
    """
    by_class: dict[int, float] = {}

    def note(ids: Indices, power: Floats) -> None:
        for root, value in zip(ids.ravel().tolist(), power.ravel().tolist(), strict=True):
            if root:
                by_class[root] = max(value, by_class.get(root, 0.0))

    for constant_site in classes.constants:
        value = graph.constant(constant_site.node.inputs[constant_site.position])
        if value is not None and not constant_site.inverse:
            pattern = constant_site.pattern
            note(*np.broadcast_arrays(pattern, np.square(value.astype(np.float64))))
    powers: dict[str, Floats] = {}
    for site in classes.linears:
        prior = np.array([by_class.get(int(i), 1.0) if i else 1.0 for i in site.input_ids])
        statistics = tensors.get(site.node.input(site.layout.data))
        if statistics is None:
            power = prior
        else:
            power = np.maximum(_channels(statistics.mean_square, site), SILENT * prior)
        powers[site.node.name] = power
        squared = np.square(_canonical(graph, site)).sum(axis=2)
        output = (squared * power[site.layout.input_index()]).sum(axis=1)
        bias = graph.constant(site.layout.bias)
        if bias is not None and bias.size in {1, site.layout.outputs}:
            output = output + np.square(bias.ravel().astype(np.float64))
        note(site.output_ids, output)
    return powers


def _weight_term(
    graph: Graph,
    site: LinearSite,
    lookup: Indices,
    gains: _Sensitivities,
    power: Floats,
) -> WeightTerm:
    layout = site.layout
    magnitude = np.abs(_canonical(graph, site)).max(axis=2)
    power = power.reshape(layout.groups, -1) * layout.taps
    variables = lookup[site.input_ids]
    return WeightTerm(
        site.node.name, _log(magnitude).astype(np.float32), lookup[site.output_ids],
        variables[layout.input_index()], gains.at_output[site.node.name], power,
        variables.reshape(layout.groups, -1),
    )  # fmt: skip


def _canonical(graph: Graph, site: LinearSite) -> NDArray[np.float32]:
    weight = graph.constant(site.layout.weight)
    assert weight is not None  # noqa: S101 - find_classes took only constant weights
    return site.layout.to_canonical(weight)


def _channels(values: Floats, site: LinearSite) -> Floats:
    """A statistic of each input channel; a tensor counted as a whole gives all the same."""
    size = site.layout.inputs
    result: Floats = (
        np.broadcast_to(values, (size,))
        if len(values) in {1, size}
        else np.full(size, values.max())
    )
    return result.astype(np.float64)


def _log(values: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        result: Floats = np.maximum(np.log(values), _EMPTY)
    return result
