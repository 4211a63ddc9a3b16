"""How samples run within a memory budget: how many at once, how many runs at a time.

What is counted or held out counts groups of `GROUP` samples, whatever runs at once. Where a run
takes fewer, a group goes through the model in parts, and their results are put together again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

from onnxq.data.ahead import AHEAD, MOST, WORKERS, map_ahead
from onnxq.data.axes import find_axes
from onnxq.data.batching import Array, as_feeds, samples_in
from onnxq.data.batching import Feeds as Samples
from onnxq.data.tokens import NO_TOKENS, Tokens, measure_tokens
from onnxq.errors import ModelError, UsageError
from onnxq.model.footprint import Footprint, known_footprint, measure_axes, measure_footprint
from onnxq.model.graph import Graph
from onnxq.model.memory import default_budget
from onnxq.model.model import Model
from onnxq.model.operators import depends_on_batch
from onnxq.model.session import Runtime
from onnxq.options import shared

Feeds = Mapping[str, Array]
Item = TypeVar("Item")
Result = TypeVar("Result")

GROUP = shared.BATCH_SIZE
"""Samples of a group; where the model fixes its batch, that is a group."""

LARGE = 1 << 29
"""Bytes of one run of a model whose bits depend on how many samples run at once. It is no part of
any budget: else the bits would depend on the machine."""

SMALL = 1 << 26
"""Bytes of one run below which saving memory is not worth any time."""

TENSORS = 0.8
"""Share of a budget for tensors; ONNX Runtime's allocator holds about a quarter more than them."""

AT_A_TIME = 4
"""Tensors of the largest size that exist at a time where single layers run."""


@dataclass(frozen=True)
class Limits:
    """What the caller allows.

    Attributes:
        batch_size: samples to run at once, at most.
        memory: bytes that activations may take at a time; 0 for `default_budget`.
        exactly: samples to run at once of a model whose results depend on it; 0 for any number.

    Raises:
        UsageError: a batch size below 1, a negative memory.
    """

    batch_size: int = GROUP
    memory: int = 0
    exactly: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"the batch size must be at least 1, not {self.batch_size}")
        if self.memory < 0:
            raise UsageError(f"memory must not be negative, as {self.memory} is")

    @property
    def budget(self) -> int:
        return self.memory or default_budget()

    def singly(self) -> Limits:
        """For a model that quantizes by the range of each run: a sample at a time."""
        return replace(self, exactly=1)

    def halved(self) -> Limits:
        """For work where results wait in memory beside what runs."""
        return replace(self, memory=max(1, self.budget // 2))


USUAL = Limits()


@dataclass(frozen=True)
class Batching:
    """How one model runs.

    Attributes:
        size: samples at once, at most; `GROUP` stands for whole groups.
        steady: the same where the bits of a model depend on it; it is the same on every machine.
        runs: at a time.
        sharing: runs among which whole groups share the cores, whether or not there is memory for
            as many: the number of threads may decide how kernels round.
        large: whether memory matters: sessions save it, and no results pile up.
        room: bytes of results that may wait in memory, see `Shelf`.
        footprint: what one sample takes; of no tensor where that could not be learned.
        axes: tensor → the axis along which it grows with the samples; see `measure_axes`.
        singly: whether the model takes one sample at a time, whatever its inputs say.
        base: where it runs, with all cores.
    """

    size: int = GROUP
    steady: int = GROUP
    runs: int = WORKERS
    sharing: int = WORKERS
    large: bool = False
    room: int = 1 << 30
    footprint: Footprint = field(default_factory=lambda: Footprint({}))
    axes: Mapping[str, int | None] = field(default_factory=dict)
    singly: bool = False
    base: Runtime = field(default_factory=Runtime)

    @property
    def splits(self) -> bool:
        """Whether groups run in parts."""
        return self.size < GROUP

    def whole(self) -> Batching:
        """For what takes whole groups only."""
        runs = max(1, self.runs * min(self.size, GROUP) // GROUP)
        return replace(self, size=GROUP, runs=runs)

    def of(self, graph: Graph) -> Batching:
        """For another model of the same tensors, such as a quantized one."""
        dependent = any(depends_on_batch(graph, node) for node in graph.nodes)
        return replace(self, size=self.steady) if dependent else self

    def parts(self, feeds: Feeds) -> list[Feeds]:
        """A group of samples, in the parts that run at once."""
        if not self.splits:
            return [feeds]
        whole, samples = as_feeds(feeds), samples_in(feeds)
        return [
            whole.take(range(first, min(first + self.size, samples)))
            for first in range(0, samples, self.size)
        ]

    def workers(self, parts: int) -> int:
        """How many of so many parts run at a time."""
        return max(1, min(self.runs, parts))

    def runtime(self, parts: int, base: Runtime | None = None) -> Runtime:
        """For one of so many parts.

        Kernels that share one sample among threads sum in another order; of several samples each
        thread takes its own. So what is less than a group has one thread.
        """
        shared = (base or self.base).share(max(1, min(self.sharing, parts)))
        return replace(shared, threads=1 if self.splits else shared.threads, lean=self.large)

    def map(
        self, work: Callable[[Item], Result], items: Iterable[Item], workers: int
    ) -> Iterator[Result]:
        """`map_ahead`; where results are large, few are there before they are asked for."""
        return map_ahead(work, items, workers=workers, ahead=1 if self.large else AHEAD)


WHOLE = Batching()
"""Groups run whole, as many at a time as there are cores: for what is small."""


@dataclass(frozen=True)
class OneSample:
    """What running one sample of a model tells; it is run when first asked for.

    Attributes:
        read: gives samples, the first of which is as large as any, see `largest_sample`.
        integers: whether the model computes with integers, which shapes alone do not count.
    """

    model: Model
    read: Callable[[], Feeds]
    runtime: Runtime = field(default_factory=Runtime)
    integers: bool = False

    @cached_property
    def largest(self) -> Feeds:
        """What it reads."""
        return self.read()

    @property
    def single(self) -> Samples:
        """One sample, or as many as the model fixes."""
        return as_feeds(self.largest) if self.fixed is not None else self._copies(1)

    @cached_property
    def fixed(self) -> int | None:
        """The number of samples that the model was exported for; None where it takes any."""
        return find_axes(self.model.inputs, self.model.outputs).fixed

    @cached_property
    def footprint(self) -> Footprint | None:
        """What it takes; None where it does not run."""
        axes = find_axes(self.model.inputs, self.model.outputs).inputs
        first = all(axis == 0 for axis in axes.values())
        known = first and not self.integers
        found = known_footprint(Graph(self.model)) if known else None
        if found is not None:
            return found
        try:
            return measure_footprint(self.model, self._copies(1), self.runtime)
        except ModelError:
            return None

    @cached_property
    def axes(self) -> Mapping[str, int | None] | None:
        """See `Batching`; None where the model takes one sample at a time."""
        try:
            return measure_axes(self.model, self._copies(1), self._copies(2), self.runtime)
        except ModelError:
            return None

    @cached_property
    def tokens(self) -> Tokens:
        """The axes that count tokens; of no tensor where the data have no mask."""
        if not as_feeds(self.largest).axes.mask:
            return NO_TOKENS
        # Of two samples: a table of positions has as many rows as one has tokens.
        single = self.fixed is not None or self.axes is None
        feeds = as_feeds(self.largest) if single else self._copies(2)
        return measure_tokens(self.model, feeds, self.runtime)

    def _copies(self, count: int) -> Samples:
        """The first sample, so many times."""
        return as_feeds(self.largest).take([0] * count)


def plan_batching(sample: OneSample, limits: Limits, *, kept: Collection[str] = ()) -> Batching:
    """How a model runs with the `kept` tensors handed out.

    Where memory is short fewer samples run at once, then fewer batches at a time.
    """
    graph = Graph(sample.model)
    workers, budget = max(1, min(MOST, sample.runtime.cores)), int(TENSORS * limits.budget)
    fixed = found = None
    with contextlib.suppress(ModelError):
        fixed = sample.fixed
        found = sample.footprint
    if found is None:
        # It has no batch axis, runs in whole groups only, or not at all: whoever runs it says so.
        size = GROUP if fixed else limits.exactly or GROUP
        return Batching(size, size, room=budget, base=sample.runtime)
    need = need_of(found, graph, kept)
    steady = _halved_until(GROUP, lambda size: size * need <= LARGE)
    asked = min(limits.batch_size, GROUP)
    size = _halved_until(asked, lambda size: size * workers * need <= budget)
    if fixed:
        size = steady = GROUP
    elif limits.exactly:
        size = steady = min(limits.exactly, GROUP)
    elif any(depends_on_batch(graph, node) for node in graph.nodes):
        size = steady
    axes = sample.axes if min(size, steady) < GROUP else {}
    if axes is None:
        size = steady = 1
    taken, whole = (max(1, each * need) for each in (fixed or size, fixed or GROUP))
    sharing = max(1, min(workers, 2 * LARGE // whole))
    runs = max(1, min(workers if size < GROUP else sharing, budget // taken))
    return Batching(
        size, steady, runs, sharing, taken > SMALL, budget, found, axes or {}, axes is None,
        sample.runtime,
    )  # fmt: skip


def need_of(found: Footprint, graph: Graph, kept: Collection[str]) -> int:
    """Bytes of one sample, whether the model runs whole or layer by layer."""
    largest = max((size for size in found.sizes.values()), default=0)
    return max(found.peak(graph, kept), AT_A_TIME * largest)


def _halved_until(size: int, fits: Callable[[int], bool]) -> int:
    while size > 1 and not fits(size):
        size //= 2
    return size
