"""Which layers are measured together: as many as there is memory for.

Each window has the float model and the quantized one run anew, so one window for all is fastest.
What is measured is the same: see `with_group`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

from onnxq.model.footprint import Footprint
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.validation.cut import cut, skeleton
from onnxq.validation.pairing import Pairing
from onnxq.validation.suffix import suffix_of


@dataclass(frozen=True)
class Window:
    """Some layers.

    Attributes:
        stages: their outputs, as `onnxq.validation.suffix` takes them.
        own: the paired tensors that they are computed from.
        behind: what the models behind them read.
    """

    stages: tuple[tuple[str, ...], ...]
    own: frozenset[str]
    behind: frozenset[str]

    def __add__(self, other: Window) -> Window:
        own, behind = self.own | other.own, self.behind | other.behind
        return Window(self.stages + other.stages, own, behind)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers' outputs."""
        return tuple(name for stage in self.stages for name in stage)

    @property
    def shown(self) -> frozenset[str]:
        """What is needed of the float model, its outputs apart."""
        return self.own | self.behind | {*self.layers}


def window_of_each(
    pairing: Pairing, stages: Sequence[tuple[str, ...]], outputs: Sequence[str]
) -> list[Window]:
    """A window of each stage; one of no layer where there is none."""
    exact, quantized = skeleton(pairing.exact), skeleton(pairing.quantized)
    return [
        Window((stage,), frozenset(_inputs(quantized, pairing.tensors, stage)),
               frozenset(suffix_of(exact, stage, outputs).reads))
        for stage in stages
    ] or [Window((), frozenset(), frozenset())]  # fmt: skip


def _inputs(quantized: Model, tensors: Sequence[str], layers: Sequence[str]) -> set[str]:
    """The paired tensors that layers are computed from."""
    part = cut(quantized, tensors, {*layers})
    return {info.name for info in part.graph.input} & set(tensors)


def join_windows(
    each: Sequence[Window], need: Callable[[Window], int], room: int
) -> tuple[Window, ...]:
    """The windows, neighbors joined where the bytes that they `need` together are there."""
    found: list[Window] = []
    for window in each:
        joined = found[-1] + window if found else window
        if found and need(joined) <= room:
            found[-1] = joined
        else:
            found.append(window)
    return tuple(found)


def all_in_one(windows: Iterable[Window]) -> Window:
    """One window of all."""
    return reduce(Window.__add__, windows)


def bytes_of(names: Iterable[str], sizes: Mapping[str, int]) -> int:
    return sum(sizes.get(name, 0) for name in names)


WORKING = 5
"""Tensors of the largest size that computing one layer, its error or its causes takes besides."""


@dataclass(frozen=True)
class Need:
    """Bytes that measuring a window takes."""

    pairing: Pairing
    outputs: Sequence[str]
    sizes: Mapping[str, int]
    graph: Graph

    def __call__(self, window: Window) -> int:
        scaled = window.own & (self.pairing.factors.keys() | self.pairing.offsets.keys())
        kept = bytes_of(window.shown | {*self.outputs}, self.sizes)
        results = bytes_of(window.layers, self.sizes) + bytes_of(scaled, self.sizes)
        largest = max(self.sizes.values(), default=0)
        return kept + results + max(self._running, WORKING * largest)

    @cached_property
    def _running(self) -> int:
        """What one run takes."""
        return Footprint(self.sizes).peak(self.graph, ())
