"""The solution space of a graph as values: scale classes, and what takes or bounds their scales."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.equalization.patterns import Pattern
from onnxq.equalization.union import Ids
from onnxq.model.graph import Node
from onnxq.model.weights import WeightLayout


@dataclass(frozen=True)
class LinearSite:
    """A weighted node: class ids of its input channels and of its outputs."""

    node: Node
    layout: WeightLayout
    input_ids: Ids
    output_ids: Ids


@dataclass(frozen=True)
class ConstantSite:
    """A constant input that must be multiplied by the scales of `pattern`.

    It is divided by those of `divisor` (the γ of a batch norm, by the scales of its input). `makes`
    is False where the constant does not make values of that scale but is held against them: a
    bound, the mean of a batch norm.
    """

    node: Node
    position: int
    pattern: Pattern
    divisor: Pattern | None = None
    makes: bool = True


@dataclass(frozen=True)
class ClipSite:
    """A Clip with finite, non-zero bounds: they must move with the scale of each element."""

    node: Node
    bounds: tuple[float, float]
    pattern: Pattern


@dataclass(frozen=True)
class Barrier:
    """A node that pinned scales to 1, and why."""

    node: str
    op_type: str
    tensor: str
    reason: str


@dataclass(frozen=True)
class ScaleClasses:
    """The solution space of a graph.

    Attributes:
        patterns: tensor → class ids, already reduced to roots; 0 is pinned.
        makers: the weighted nodes and constants that take the scales, in an order that only the
            graph decides: what makes a tensor comes before what reads it.
        clips: the bounds that move with them.
        barriers: why scales are pinned.
    """

    patterns: Mapping[str, Pattern]
    makers: tuple[LinearSite | ConstantSite, ...]
    clips: tuple[ClipSite, ...]
    barriers: tuple[Barrier, ...]

    @cached_property
    def linears(self) -> tuple[LinearSite, ...]:
        return tuple(site for site in self.makers if isinstance(site, LinearSite))

    @cached_property
    def constants(self) -> tuple[ConstantSite, ...]:
        return tuple(site for site in self.makers if isinstance(site, ConstantSite))

    @property
    def free(self) -> Ids:
        """Roots that may take a scale, ascending."""
        ids = [site.output_ids for site in self.linears] + [site.input_ids for site in self.linears]
        ids += [site.pattern.ravel() for site in self.constants]
        return np.unique(np.concatenate([np.zeros(1, np.int64), *ids]))[1:]

    def channel_axis(self, tensor: str) -> int | None:
        """The one axis along which the tensor's scales vary; None for none or several."""
        pattern = self.patterns.get(tensor)
        if pattern is None:
            return None
        axes = [axis for axis, size in enumerate(pattern.shape) if size > 1]
        return axes[0] if len(axes) == 1 else None


def constant_scales(site: ConstantSite, exponents: Mapping[int, float]) -> NDArray[np.float64]:
    """What the constant is multiplied by, broadcastable to it."""
    scales = scales_of(site.pattern, exponents)
    return scales if site.divisor is None else scales / scales_of(site.divisor, exponents)


def scales_of(pattern: NDArray[Any], exponents: Mapping[int, float]) -> NDArray[np.float64]:
    """2^σ for each id of a pattern; ids without an exponent, such as 0, have scale 1."""
    values = [exponents.get(identifier, 0.0) for identifier in pattern.ravel().tolist()]
    return np.exp2(np.array(values, np.float64)).reshape(pattern.shape)
