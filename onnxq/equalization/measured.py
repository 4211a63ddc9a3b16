"""Scales of what matrices multiply, by the error that rounding really makes at their outputs.

The noise that `noise` expects of a tensor takes its range for its step and every value's error for
even. Where a few channels are far larger than the others, as behind the GELUs and norms of a
transformer, neither holds: ranges clip, and most values round to 0. There the error is measured, on
samples: that of the rounded input and that of the rounded weights together, for the scales that
were solved and for candidates s = (largest weight)^b / (size of the channel)^a (SmoothQuant, Xiao
et al., 2023, has b = 1 − a), all of them powers of two.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.statistics import TensorStatistics
from onnxq.data.budget import WHOLE, Batching
from onnxq.data.gather import run_batches
from onnxq.data.masks import real_positions
from onnxq.data.tokens import NO_TOKENS, Tokens
from onnxq.equalization.candidates import bits
from onnxq.equalization.choose import Choice
from onnxq.equalization.groups import Group
from onnxq.equalization.sites import LinearSite
from onnxq.equalization.solve import LIMIT
from onnxq.formats.fit import fit_magnitude, fit_range
from onnxq.formats.granularity import PER_TENSOR, PerChannel
from onnxq.formats.parameters import as_quantized
from onnxq.formats.scheme import Spec
from onnxq.model.model import Model
from onnxq.model.session import with_outputs

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Feeds = Mapping[str, NDArray[Any]]

POWERS = tuple(itertools.product((0.35, 0.5, 0.65, 0.8), (0.0, 0.25)))
"""Powers (a, b) of a channel's size and of its largest weight that are tried."""

SHARES_OF_RANGE = (1.0, 0.8, 0.6, 0.45)
"""Ranges that are tried with each: the estimator will clip where that pays."""

LARGE = 2.0**32
"""Magnitude of values above which their squares are not taken as they are."""

ROWS = 1024
"""Rows of a tensor that are looked at."""

OUTPUTS = 128
"""Outputs of a layer whose weights are rounded; the others' errors are alike."""

DIRECTIONS = 64
"""Random directions in which errors are measured, of as many as there are outputs or rows."""


@dataclass(frozen=True)
class Job:
    """A tensor whose scales are free, and the matrices that read it.

    Attributes:
        tensor: as it is called in the model without channel factors.
        variables: (channels,), of each channel.
        weight: (channels, outputs of all readers).
        low, high, size: (channels,), extremes and root of the mean square.
        columns: (outputs of all readers,), their own scales; 1 where each has a step of its own.
        per_channel: whether each has.
    """

    tensor: str
    axis: int
    variables: NDArray[np.int64]
    weight: Singles
    low: Floats
    high: Floats
    size: Floats
    columns: Singles
    per_channel: bool


def measured(
    choice: Choice,
    feeds: Sequence[Feeds],
    batching: Batching = WHOLE,
    tokens: Tokens = NO_TOKENS,
) -> Choice:
    """The choice with better scales for the inputs of matrices, where samples show some.

    Args:
        feeds: samples of the model that it was chosen for.
        tokens: which axes count tokens, so that padding does not count.

    Returns:
        The same choice where the ranges of activations are not known in advance, or a tensor's
        scales cannot move without moving what others read.
    """
    scheme = choice.options.scheme
    jobs = _jobs(choice)
    if scheme.static is None or scheme.weight is None or not jobs or not feeds:
        return choice
    exponents, start = choice.solution.exponents.copy(), choice.solution.start
    rows = _rows(choice.original, jobs, feeds, batching, tokens)
    for job in jobs:
        now = choice.solution.change[job.variables]
        error = _measure(
            job, rows[job.tensor], scheme.static, scheme.weight,
            share=choice.options.weights_left,
        )  # fmt: skip
        best = min((now, *_candidates(job, now)), key=error)
        exponents[job.variables] = start[job.variables] + best
    after = choice.noise.evaluate(exponents * math.log(2))
    return replace(choice, solution=replace(choice.solution, exponents=exponents, after=after))


def _candidates(job: Job, now: Floats) -> list[Floats]:
    """log₂ s (channels,) in whole numbers; channels that share a variable get the same."""
    size = bits(job.size)
    weight = bits(np.abs(job.weight).max(axis=1).astype(np.float64))
    _, first, shared = np.unique(job.variables, return_index=True, return_inverse=True)
    found = []
    for a, b in POWERS:
        wanted = b * weight - a * size
        wanted = np.bincount(shared, wanted) / np.bincount(shared)
        whole = np.rint(wanted - np.median(wanted) + np.median(now[first]))
        found.append(np.clip(whole, -LIMIT, LIMIT)[shared])
    return found


def _jobs(choice: Choice) -> list[Job]:
    """The tensors that only matrices read, whose scales nothing else that is rounded shares; of
    those that the solver scaled.
    """
    source = {factor.name: factor.tensor for factor in choice.factors}
    group_of = {root: group for group in choice.groups for root in group.roots}
    readers: dict[str, list[LinearSite]] = {}
    for site in choice.classes.linears:
        readers.setdefault(site.node.input(site.layout.data), []).append(site)
    jobs = []
    for tensor, sites in readers.items():
        ids = sites[0].input_ids.tolist()
        group = group_of.get(ids[0])
        if group is None or not set(ids) <= set(group.roots):
            continue
        if not _stands_alone(choice, group, sites):
            continue
        name = source.get(tensor, tensor)
        tensors = {} if choice.calibration is None else choice.calibration.tensors
        statistics = tensors.get(tensor)
        if statistics is not None and statistics.channels == len(ids):
            jobs.append(_job(choice, name, sites, statistics))
    return jobs


def _job(choice: Choice, name: str, sites: Sequence[LinearSite], found: TensorStatistics) -> Job:
    layout = sites[0].layout
    variables = np.array([choice.variables.of[i] for i in sites[0].input_ids.tolist()])
    weights = [
        site.layout.to_output_major(choice.graph.value(site.layout.weight))[:, :, 0].T
        for site in sites
    ]
    return Job(
        name, layout.input_axis, variables, np.concatenate(weights, axis=1).astype(np.float32),
        np.minimum(found.minimum, 0.0).astype(np.float64),
        np.maximum(found.maximum, 0.0).astype(np.float64), np.sqrt(found.mean_square),
        np.concatenate([_columns(choice, site) for site in sites]),
        all(choice.options.by_channel(site.node) for site in sites),
    )  # fmt: skip


def _columns(choice: Choice, site: LinearSite) -> Singles:
    """(outputs,), the scales chosen for what a layer gives, where they matter to its step."""
    if choice.options.by_channel(site.node):
        return np.ones(site.layout.outputs, np.float32)
    variables = [choice.variables.of.get(root, 0) for root in site.output_ids.tolist()]
    return np.exp2(choice.solution.change[variables]).astype(np.float32)


def _stands_alone(choice: Choice, group: Group, sites: Sequence[LinearSite]) -> bool:
    """Whether the scales of the group matter to these matrices only.

    The rows of what makes the tensor take any scale for nothing where each has a step of its own.
    """
    names = {site.node.name for site in sites}
    free = all(choice.options.by_channel(choice.graph.by_name[name]) for name in group.producers)
    scaled = choice.solution.change[[choice.variables.of[root] for root in group.roots]].any()
    bounded = any(root in choice.variables.limits for root in group.roots)
    return (
        free
        and bool(scaled)
        and not bounded
        and set(group.consumers) == names
        and all(len(site.layout.shape) == 2 for site in sites)
        and all(np.array_equal(site.input_ids, sites[0].input_ids) for site in sites)
    )


def _rows(
    model: Model,
    jobs: Sequence[Job],
    feeds: Sequence[Feeds],
    batching: Batching,
    tokens: Tokens = NO_TOKENS,
) -> dict[str, Singles]:
    """(rows, channels) of each tensor, up to `ROWS` spread over the samples, none of padding."""
    names = list(dict.fromkeys(job.tensor for job in jobs))
    axes = {job.tensor: job.axis for job in jobs}
    parts: dict[str, list[Singles]] = {name: [] for name in names}
    each = max(1, -(-ROWS // len(feeds)))
    shown = Model.adopt(with_outputs(model, names))
    found = run_batches(shown, names, feeds, optimize=False, batching=batching)
    for batch, values in zip(feeds, found, strict=True):
        real = real_positions(batch)
        for name, whole in zip(names, values, strict=True):
            kept = None if real is None else tokens.kept(name, whole, real)
            value = whole if kept is None else kept
            rows = np.moveaxis(value, axes[name], -1).reshape(-1, value.shape[axes[name]])
            chosen = np.linspace(0, len(rows) - 1, min(each, len(rows))).astype(np.int64)
            parts[name].append(rows[chosen].astype(np.float32))
    return {name: np.concatenate(each) for name, each in parts.items()}


def _measure(
    job: Job, rows: Singles, activation: Spec, weight: Spec, *, share: float
) -> Callable[[Floats], float]:
    """log₂ s (channels,) → squared error at the readers' outputs, of the rounded input and, as far
    as `share` says, of the rounded weights.
    """
    # Squares of large values overflow float32: they count in units of a power of two near them,
    # which changes no error beside another.
    largest = float(np.abs(rows).max(initial=0.0))
    unit = math.ldexp(1.0, math.frexp(largest)[1]) if largest > LARGE else 1.0
    rows = rows / np.float32(unit)
    job = replace(job, low=job.low / unit, high=job.high / unit)
    generator = np.random.default_rng(0)
    outputs = int(job.weight.shape[1])
    chosen = np.linspace(0, outputs - 1, min(outputs, OUTPUTS)).astype(np.int64)
    read = job.weight @ _directions(generator, outputs).T
    mixed = _directions(generator, len(rows)) @ rows
    per_channel, columns = job.per_channel, job.columns[chosen]
    granularity = PerChannel(1) if per_channel else PER_TENSOR

    def of_input(scale: Singles) -> float:
        scaled = rows * scale
        low, high = float((job.low * scale).min()), float((job.high * scale).max())
        # By powers of two, which change no bit.
        behind = read / scale[:, None]
        errors = []
        for part in SHARES_OF_RANGE:
            parameters = fit_range(part * low, part * high, activation)
            wrong = as_quantized(scaled, parameters)
            wrong -= scaled
            errors.append(float(np.square(wrong @ behind).sum()))
        return min(errors)

    def of_weights(scale: Singles) -> float:
        scaled = job.weight * job.columns / scale[:, None]
        magnitude = np.abs(scaled).max(axis=0 if per_channel else None, initial=0.0)
        magnitude = np.atleast_1d(magnitude)[chosen if per_channel else slice(None)]
        parameters = fit_magnitude(magnitude.astype(np.float64), weight, granularity)
        some = scaled[:, chosen]
        wrong = as_quantized(some, parameters) - some
        found = np.square((mixed * scale) @ (wrong / columns))
        return float(found.sum()) * outputs / len(chosen)

    def error(exponents: Floats) -> float:
        scale: Singles = np.exp2(exponents).astype(np.float32)
        return of_input(scale) + share * of_weights(scale)

    return error


def _directions(generator: np.random.Generator, count: int) -> Singles:
    """(directions, count): signs; products with them have the power of all `count` values."""
    signs = generator.choice(np.array([-1, 1], np.float32), (DIRECTIONS, count))
    return np.asarray(signs / math.sqrt(DIRECTIONS), np.float32)
