"""What a pass back starts from: random signs at the leaves, in units of their deviations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.data.batching import as_feeds
from onnxq.data.tokens import Tokens
from onnxq.gradients.graph import BackwardModel
from onnxq.gradients.leaves import Leaf
from onnxq.gradients.signs import drawn_signs, generator_of
from onnxq.model.backward import is_sized_by_values
from onnxq.model.graph import Graph
from onnxq.model.session import open_session, run, with_outputs

Array = NDArray[Any]
Feeds = Mapping[str, Array]
Shapes = Mapping[str, tuple[int, ...]]


class LeafShapes:
    """The shapes that the leaves have, of which the model has to run once for each of its inputs'.

    Where shapes follow from values, as behind a NonMaxSuppression, it runs for each sample.
    """

    def __init__(self, graph: Graph, names: Sequence[str]) -> None:
        self.names = names
        self._by_values = any(map(is_sized_by_values, graph.nodes))
        self._model = graph.model
        self._session: Any = None
        self._known: dict[tuple[tuple[int, ...], ...], Shapes] = {}

    def of(self, feeds: Feeds) -> Shapes:
        key = tuple(values.shape for values in feeds.values())
        if key not in self._known or self._by_values:
            self._session = self._session or open_session(with_outputs(self._model, self.names))
            found = run(self._session, self.names, feeds)
            self._known[key] = {n: v.shape for n, v in zip(self.names, found, strict=True)}
        return self._known[key]


def passes_back(
    session: Any,
    made: BackwardModel,
    names: Sequence[str],
    leaves: Sequence[Leaf],
    sample: tuple[Feeds, Shapes],
    tokens: Tokens,
    draws: int,
) -> Iterator[list[Array]]:
    """Outputs of a backward model, for each draw of signs; these follow from the sample."""
    feeds, shapes = sample
    generator = generator_of(feeds)
    for _ in range(draws):
        seeds = _seeds_of(made, leaves, feeds, shapes, tokens, generator)
        yield run(session, names, {**as_feeds(feeds).arrays, **seeds})


def _seeds_of(
    made: BackwardModel,
    leaves: Sequence[Leaf],
    feeds: Feeds,
    shapes: Shapes,
    tokens: Tokens,
    generator: np.random.Generator,
) -> dict[str, Array]:
    """±1/σ of each element of a leaf, 0 where it is padding, by the name of the seed's input."""
    seeds: dict[str, Array] = {}
    for leaf in leaves:
        for name in leaf.tensors:
            signs = drawn_signs(generator, name, shapes[name], feeds, tokens)
            seeds[made.seeds[name]] = (signs / leaf.deviation).astype(np.float32)
    return seeds
