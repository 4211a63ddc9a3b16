"""What of the outputs has a signal and a noise of its own: groups of slices, else the whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxq.closeness import Sums, add_sums, as_array, closeness, is_float, sums_of
from onnxq.data.batching import samples_in
from onnxq.data.tokens import NO_TOKENS, Tokens
from onnxq.model.session import run
from onnxq.validation.powers import difference, power

if TYPE_CHECKING:
    from onnxruntime import InferenceSession as Session

Array = NDArray[Any]
Feeds = Mapping[str, Array]


Part = tuple[str, int | None, tuple[int, ...]]


@dataclass(frozen=True)
class Parts:
    """The outputs, or groups of their slices, that have a signal and a noise of their own.

    Attributes:
        parts: output, axis and slices of each; axis None for all of it.
        tokens: which axes of the float model's tensors count tokens: padding does not count.
    """

    parts: tuple[Part, ...]
    tokens: Tokens = NO_TOKENS

    def signal(self, wanted: Mapping[str, Array], feeds: Feeds) -> Array:
        """(parts,): Σ x²."""
        return np.array([power(self._of(part, wanted, feeds)) for part in self.parts])

    def noise(self, got: Mapping[str, Array], wanted: Mapping[str, Array], feeds: Feeds) -> Array:
        """(parts,): Σ (x − y)²; of outputs of two shapes Σ x², as if there were none."""
        pairs = ((self._of(part, got, feeds), self._of(part, wanted, feeds)) for part in self.parts)
        return np.array([power(difference(one, other)) for one, other in pairs])

    def _of(self, part: Part, values: Mapping[str, Array], feeds: Feeds) -> Array:
        name, axis, slices = part
        whole = as_array(values[name])
        if not is_float(whole):
            whole = whole.astype(np.float64)
        real = self.tokens.real(name, whole.shape, feeds)
        if real is not None:
            whole = np.where(real, whole, np.zeros((), whole.dtype))
        return _slices(whole, axis, slices)


def _slices(whole: Array, axis: int | None, slices: tuple[int, ...]) -> Array:
    if axis is None:
        return whole
    return np.take(whole, [place for place in slices if place < whole.shape[axis]], axis)


def parts_of(
    exact: Session, outputs: Sequence[str], batches: Iterable[Feeds], tokens: Tokens = NO_TOKENS
) -> Parts:
    """The parts of a float model's outputs: groups, else the whole; of float ones if there are.

    Args:
        tokens: which axes of the outputs count tokens, so that padding does not count.
    """
    sums: dict[str, Sums] = {}
    for feeds in batches:
        arrays = {name: feeds[name] for name in outputs if name in feeds}
        names = [name for name in outputs if name not in feeds]
        arrays |= {
            name: as_array(value)
            for name, value in zip(names, run(exact, names, feeds) if names else [], strict=True)
        }
        numeric = {name: value for name, value in arrays.items() if value.dtype.kind not in "OSU"}
        kept = {name: value for name, value in numeric.items() if is_float(value)} or numeric
        add_sums(sums, sums_of(kept, kept, samples_in(feeds), tokens.of(kept, feeds)))
    return Parts(
        tuple(
            (part.output, part.axis, part.slices)
            for each in closeness(sums)
            for part in (each.groups or (each.whole,))
        ),
        tokens,
    )
