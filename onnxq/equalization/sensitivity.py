"""How much power each channel carries, and how much an error in it matters.

Powers run forwards and sensitivities backwards through squared weights, class by class: noises are
taken as independent (mean field). Both follow the scales of the graph exactly, so models that
differ by powers of two only have the same noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.statistics import Calibration, TensorStatistics
from onnxq.equalization.sites import LinearSite, ScaleClasses, constant_scales, scales_of
from onnxq.model.graph import Graph
from onnxq.model.operators import saturated_output, saturation

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

SILENT = 1e-4
"""Least power of a channel, as a share of what the weights before it suggest."""


@dataclass(frozen=True)
class Frame:
    """A graph and its calibration, seen as if its classes had taken the scales 2^exponents."""

    graph: Graph
    classes: ScaleClasses
    tensors: Mapping[str, TensorStatistics]
    exponents: Mapping[int, float]

    def scales(self, ids: Indices) -> Floats:
        return scales_of(ids, self.exponents)

    def magnitudes(self, site: LinearSite) -> Floats:
        """The largest |W| of the taps, scaled: (groups, outputs per group, inputs per group)."""
        return self._scaled(site, np.abs(self._weight(site)).max(axis=2).astype(np.float64), 1)

    def squares(self, site: LinearSite) -> Floats:
        """Σ W² over the taps, scaled: (groups, outputs per group, inputs per group)."""
        return self._scaled(site, squares_of(self._weight(site)), 2)

    def _weight(self, site: LinearSite) -> NDArray[Any]:
        return site.layout.to_output_major(self.graph.value(site.layout.weight))

    def _scaled(self, site: LinearSite, values: Floats, power: int) -> Floats:
        """Values (outputs, inputs per group) as those of the scaled weight to this power."""
        rows, columns = (self.scales(ids) ** power for ids in (site.output_ids, site.input_ids))
        scaled = site.layout.scaled(values[:, :, None], rows, columns)
        return scaled.reshape(site.layout.groups, -1, values.shape[1])

    def bias(self, site: LinearSite) -> Floats | None:
        """The bias (outputs,), scaled; None where there is none or it differs from row to row."""
        bias = self.graph.constant(site.layout.bias)
        if bias is None or bias.size not in {1, site.layout.outputs}:
            return None
        result: Floats = bias.ravel().astype(np.float64) * self.scales(site.output_ids)
        return result

    def input_statistics(self, site: LinearSite) -> TensorStatistics | None:
        return self.tensors.get(site.node.input(site.layout.data))


@dataclass(frozen=True)
class Sensitivities:
    """G of each weighted node's outputs and inputs, relative to the power of its output.

    So the noise of each layer counts against its own signal: products of many layers' squared
    weights order the channels of one layer well, but say little about how layers compare.

    Attributes:
        by_class: root → the same of its channels wherever layers read them, relative to nothing.
    """

    at_output: Mapping[str, Floats]
    at_input: Mapping[str, Floats]
    by_class: Mapping[int, float]


def input_gains(graph: Graph, classes: ScaleClasses, calibration: Calibration) -> dict[str, Floats]:
    """Tensor → how much an error in each of its channels matters where weights read it."""
    frame = Frame(graph, classes, calibration.tensors, {})
    gains = sensitivities(frame, input_powers(frame))
    result: dict[str, Floats] = {}
    for site in classes.linears:
        tensor = site.node.input(site.layout.data)
        result[tensor] = result.get(tensor, 0.0) + gains.at_input[site.node.name]
    return result


def sensitivities(frame: Frame, powers: Mapping[str, Floats]) -> Sensitivities:
    """Carry squared weights backwards.

    Args:
        powers: of `input_powers`.
    """
    by_class: dict[int, float] = {}
    at_output: dict[str, Floats] = {}
    at_input: dict[str, Floats] = {}
    for site in reversed(frame.classes.linears):
        # Pinned channels count 1: anything taken from the classes would move with their scales.
        outputs = np.array([by_class.get(int(i), 1.0) if i else 1.0 for i in site.output_ids])
        squares = frame.squares(site)
        received = _from_outputs(squares, outputs)
        expected = from_inputs(squares, powers[site.node.name])
        signal = max(_signal(frame, site, expected, outputs), 1e-30)
        at_output[site.node.name] = np.maximum(outputs / signal, 1e-200)
        at_input[site.node.name] = received / signal
        passed = received * _alive(frame, site)
        for root, value in zip(site.input_ids.tolist(), passed.tolist(), strict=True):
            if root:
                by_class[root] = by_class.get(root, 0.0) + value
    return Sensitivities(at_output, at_input, by_class)


def _signal(frame: Frame, site: LinearSite, expected: Floats, gain: Floats) -> float:
    """Power of the node's output, weighted by the sensitivity of its channels.

    Measured after the activation where there is a calibration: neighbouring pixels are alike, so
    a high-pass filter's output is far weaker than its weights and inputs suggest.
    """
    statistics = frame.tensors.get(saturated_output(frame.graph, site.node))
    if statistics is not None and statistics.channels == site.layout.outputs:
        return float(gain @ (statistics.variance * frame.scales(site.output_ids) ** 2))
    return float(gain @ expected)


def _alive(frame: Frame, site: LinearSite) -> Floats:
    """Share of each input channel's values that let the noise of what came before through.

    A value at zero behind a Relu, or at the bound of a Clip, passes none.
    """
    statistics = frame.input_statistics(site)
    if statistics is None or statistics.channels != site.layout.inputs:
        return np.ones(site.layout.inputs)
    alive = 1 - statistics.share_of(np.zeros(1))
    producer = frame.graph.producers.get(site.node.input(site.layout.data))
    bound = saturation(frame.graph, producer) if producer else None
    if bound is not None and bound.size in {1, statistics.channels} and np.all(bound > 0):
        alive = alive - statistics.share_of(bound.ravel())
    return np.clip(alive, 1e-3, 1.0)


def input_powers(frame: Frame) -> dict[str, Floats]:
    """Weighted node → E[x²] of its input channels, measured, or carried forward through weights.

    What the weights alone suggest, with inputs of power 1, also bounds the measured power from
    below: a channel that was silent during calibration may wake.
    """
    by_class: dict[int, float] = {}

    def note(ids: Indices, power: Floats) -> None:
        for root, value in zip(ids.ravel().tolist(), power.ravel().tolist(), strict=True):
            if root:
                by_class[root] = max(value, by_class.get(root, 0.0))

    for constant in frame.classes.constants:
        value = frame.graph.constant(constant.node.inputs[constant.position])
        if value is not None and constant.makes:
            scaled = value.astype(np.float64) * constant_scales(constant, frame.exponents)
            note(*np.broadcast_arrays(constant.pattern, np.square(scaled)))
    powers: dict[str, Floats] = {}
    for site in frame.classes.linears:
        prior = np.array([by_class.get(int(i), 1.0) if i else 1.0 for i in site.input_ids])
        statistics = frame.input_statistics(site)
        if statistics is None:
            power = prior
        else:
            measured = channels(statistics.mean_square, site) * frame.scales(site.input_ids) ** 2
            power = np.maximum(measured, SILENT * prior)
        powers[site.node.name] = power
        output = from_inputs(frame.squares(site), power)
        bias = frame.bias(site)
        note(site.output_ids, output if bias is None else output + np.square(bias))
    return powers


def squares_of(weight: NDArray[Any]) -> Floats:
    """Σ W² over the taps of a weight (outputs, inputs per group, taps)."""
    result: Floats = np.square(weight, dtype=np.float64).sum(axis=2)
    return result


def from_inputs(squares: Floats, power: Floats) -> Floats:
    """(outputs,): what comes of a power of each input, whatever the number of threads."""
    result: Floats = np.einsum("goi,gi->go", squares, power.reshape(len(squares), -1))
    return result.ravel()


def _from_outputs(squares: Floats, gain: Floats) -> Floats:
    """(inputs,): the same backwards."""
    result: Floats = np.einsum("goi,go->gi", squares, gain.reshape(len(squares), -1))
    return result.ravel()


def channels(values: Floats, site: LinearSite) -> Floats:
    """A statistic of each input channel; a tensor counted as a whole gives all the same."""
    size = site.layout.inputs
    result: Floats = (
        np.broadcast_to(values, (size,))
        if len(values) in {1, size}
        else np.full(size, values.max())
    )
    return result.astype(np.float64)


def snap(values: Floats) -> Floats:
    """Positive values on a grid of 2^−30 in the logarithm: the same bits whatever the order in
    which they were summed; values of 0 stay.
    """
    logarithm = np.log(np.maximum(values, 1e-300))
    return np.where(values > 0, np.exp(np.rint(logarithm * 2**30) / 2**30), 0.0)
