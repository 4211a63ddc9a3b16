"""Measure what errors of tensors cost at the outputs: one pass back for each sample.

The gradient that is carried back is that of Σ ±output/σ with random signs: over the signs the
expected square of it is the sum of the squared gradients of all outputs, so one pass does for all
of them (Hutchinson). The signs of a sample follow from its values, so the result does not depend on
the order of the samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.costs import Costs, CostSums
from onnxq.calibration.statistics import Calibration
from onnxq.data.ahead import WORKERS, map_ahead
from onnxq.data.batching import one_by_one
from onnxq.data.masks import Real, real_positions
from onnxq.data.tokens import NO_TOKENS, Tokens
from onnxq.errors import ModelError, ResourceError
from onnxq.gradients.graph import NO_PATH, BackwardModel, backward_model
from onnxq.gradients.leaves import Leaf, find_leaves
from onnxq.gradients.seeds import LeafShapes, Shapes, passes_back
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.session import Runtime
from onnxq.progress import SILENT, Progress
from onnxq.refusal import Refusal

Array = NDArray[Any]
Feeds = Mapping[str, Array]

MOST = 64
"""Samples that are looked at, spread over those given."""

LARGE = 1 << 26
"""Bytes of values and gradients of a sample from which on half of the samples are looked at."""

MOST_DRAWS = 8
"""Signs that are drawn for a sample, at most. With 64 of them a cost of rounding is known to 9 % on
a detector and to 1 % on an encoder, one of clipping to 30 %."""

ROOM = 1 << 30
"""Bytes of values and gradients that are handed out at a time."""

USUAL = 1 << 27
"""The same of a sample that is no trouble; signs are drawn anew only as far as all take less."""

NOT_CALIBRATED = Refusal("its values were not calibrated")
JOINED = Refusal("it only puts parts of an output together, which count by themselves")
NO_NUMBERS = Refusal("its gradient is NaN or infinite")
NO_VARIANCE = Refusal("no float output of the model varies")


def measure_costs(
    model: Model,
    calibration: Calibration,
    feeds: Sequence[Feeds],
    wanted: Sequence[str] | None = None,
    *,
    samples: int = MOST,
    room: int = ROOM,
    tokens: Tokens = NO_TOKENS,
    progress: Progress = SILENT,
) -> Costs:
    """What rounding and clipping each tensor costs at the outputs, to first order (Taylor).

    Args:
        model: normalized, float.
        calibration: of the same model.
        feeds: samples, in batches of any size.
        wanted: the tensors; None for all that were calibrated.
        samples: how many to look at, at most.
        room: bytes of values and gradients in memory at a time; where all tensors take more there
            are several passes, each over some of them.
        tokens: which axes count tokens, so that padding does not count.

    Returns:
        Costs of every tensor of which there is a gradient, and the reason of the others: an
        operator without one on the way to an output, no float output behind it, gradients that are
        NaN or infinite, or not enough memory for them.
    """
    graph, tensors = Graph(model), calibration.tensors
    names = list(tensors if wanted is None else wanted)
    leaves = find_leaves(graph, tensors)
    if not leaves.parts or not feeds:
        return Costs(0, {}, dict.fromkeys(names, NO_VARIANCE))
    refused = {n: Refusal(graph.why_not_float(n)) for n in names if not graph.is_float(n)}
    refused |= {name: NOT_CALIBRATED for name in names if name not in tensors}
    refused |= {name: JOINED for name in names if name in leaves.joined}
    known = [name for name in names if name not in refused]
    sizes = {name: bytes_in_sample(calibration, name) for name in known}
    samples = samples if sum(sizes.values()) < LARGE else max(1, samples // 2)
    singles = _spread(one_by_one(feeds), samples)
    work = _Work.of(sizes, len(singles), samples, room)
    sums = {
        name: CostSums(tensors[name].top, tensors[name].low, tensors[name].high) for name in known
    }
    shapes = LeafShapes(graph, leaves.tensors)
    with progress.track("gradients", len(work.groups) * len(singles)) as advance:
        for group in work.groups:
            made = backward_model(graph, group, leaves.tensors)
            refused |= made.refused
            try:
                runner = _Runner(made, leaves.parts, tokens, sums, work)
                items = ((sample, shapes.of(sample)) for sample in singles)
                found = map_ahead(runner.run, items, workers=work.workers, ahead=1)
                for number, rows in enumerate(found, 1):
                    for name, row in rows:
                        if isinstance(row, Refusal):
                            refused.setdefault(name, Refusal(f"{row} in sample {number}"))
                        else:
                            sums[name].add(row)
                    advance(1)
            except (ModelError, ResourceError) as error:
                # The model itself runs: there are always the ranges that need no gradients.
                reason = Refusal(f"its gradient cannot be computed: {error.message}")
                refused |= dict.fromkeys(made.gradients, reason)
    costs = {name: each.finish() for name, each in sums.items() if name not in refused}
    silent = {name for name, each in costs.items() if not each.power.any()}
    refused |= dict.fromkeys(silent, NO_PATH)
    return Costs(len(singles), {n: each for n, each in costs.items() if n not in silent}, refused)


def bytes_in_sample(calibration: Calibration, name: str) -> float:
    """Of the values of a tensor and its gradient in one sample."""
    return 8 * calibration.tensors[name].seen / max(calibration.samples, 1)


def _spread(singles: Sequence[Feeds], count: int) -> list[Feeds]:
    """Up to `count` samples, from all over."""
    if len(singles) <= count:
        return list(singles)
    return [singles[place] for place in np.linspace(0, len(singles) - 1, count).astype(int)]


@dataclass(frozen=True)
class _Work:
    """How samples run.

    Attributes:
        groups: tensors of each pass.
        workers: samples that run at a time, on one thread each: kernels that share a sample among
            threads round otherwise with another number of them.
        draws: how often signs are drawn for each sample: few small samples make up for it.
    """

    groups: tuple[tuple[str, ...], ...]
    workers: int
    draws: int

    @classmethod
    def of(cls, sizes: Mapping[str, float], samples: int, wanted: int, room: int) -> _Work:
        """Args: sizes: bytes of each tensor; wanted: samples that would do."""
        total = max(sum(sizes.values()), 1.0)
        workers = int(np.clip(room // total, 1, min(WORKERS, samples)))
        affordable = min(wanted / samples, MOST * USUAL / (samples * total))
        draws = int(np.clip(affordable, 1, MOST_DRAWS))
        groups: list[list[str]] = []
        taken = math.inf
        for name, size in sizes.items():
            if taken + size > room:
                groups.append([])
                taken = 0.0
            groups[-1].append(name)
            taken += size
        return cls(tuple(map(tuple, groups)), workers, draws)

    @property
    def runtime(self) -> Runtime:
        return Runtime(threads=1, lean=True)


class _Runner:
    """Runs samples forwards and backwards; several threads may."""

    def __init__(
        self,
        made: BackwardModel,
        leaves: Sequence[Leaf],
        tokens: Tokens,
        sums: Mapping[str, CostSums],
        work: _Work,
    ) -> None:
        self._made, self._leaves, self._tokens = made, leaves, tokens
        self._sums, self._draws = sums, work.draws
        # What is fused depends on what is handed out, and that on the memory: node by node the bits
        # are the same.
        opened = work.runtime.open(made.model, optimize=False) if made.gradients else None
        self._session = opened

    def run(self, item: tuple[Feeds, Shapes]) -> list[tuple[str, Array | Refusal]]:
        """Tensors, and what `CostSums.of_sample` says of them, for each draw of signs."""
        feeds, _ = item
        rows: list[tuple[str, Array | Refusal]] = []
        if self._session is None:
            return rows
        names = [spec.name for spec in self._made.model.outputs]
        real = real_positions(feeds)
        for found in passes_back(
            self._session, self._made, names, self._leaves, item, self._tokens, self._draws
        ):
            outputs = dict(zip(names, found, strict=True))
            for name, its in self._made.gradients.items():
                values, gradient = (self._kept(name, outputs[each], real) for each in (name, its))
                finite = bool(np.isfinite(gradient).all())
                row = self._sums[name].of_sample(values, gradient) if finite else NO_NUMBERS
                rows.append((name, row))
        return rows

    def _kept(self, name: str, values: Array, real: Real | None) -> Array:
        """The values that are no padding."""
        kept = None if real is None else self._tokens.kept(name, values, real)
        return values if kept is None else kept
