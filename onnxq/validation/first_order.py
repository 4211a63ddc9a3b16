"""What the own errors of layers do to the outputs, to first order: error times gradient.

One pass back through the float model serves all layers, where running what lies behind each of
them takes a run a layer. The gradient is that of Σ ±element of a part of the outputs: over the
signs the expected square of Σ error · gradient is the power of the error at that part.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.passes import with_group
from onnxq.data.batching import as_feeds
from onnxq.gradients import BackwardModel, backward_model, drawn_signs, generator_of
from onnxq.model.graph import Graph
from onnxq.model.session import run
from onnxq.validation.workbench import Bench, OpenWindow

Array = NDArray[Any]
Feeds = Mapping[str, Array]
Errors = Iterable[tuple[str, Array]]

MEMORY = 1 << 30
"""Bytes that a batch's tensors and their gradients may take, about: a pass back keeps them all."""

SAMPLES = 64
"""Samples that are looked at, at most."""

FEWEST, MOST = 32, 128
"""Passes back, at least and at most: so many draws of signs for all parts together."""

LEAST_DRAWS = 8
"""Draws for a part of the outputs; where there are more parts than this leaves passes for, all
layers are run."""


@dataclass(frozen=True)
class Slopes:
    """Finds effects by gradients.

    Attributes:
        bench: what is measured.
        made: the float model with the gradients of all layers that have one.
        draws: of signs, for each sample and part.
    """

    bench: Bench
    made: BackwardModel
    draws: int = 1

    @property
    def layers(self) -> Collection[str]:
        """Outputs of the layers that it can tell of."""
        return self.made.gradients

    def open(self, opened: OpenWindow) -> RunSlopes:
        """A session for a window's layers, which computes as if it were for all."""
        names = tuple(name for name in opened.window.layers if name in self.layers)
        every = list(dict.fromkeys(self.made.gradients.values()))
        group = list(dict.fromkeys(self.made.gradients[name] for name in names))
        proto = with_group(self.made.model, group, [name for name in every if name not in group])
        session = self.bench.pace.open(proto) if names else None
        return RunSlopes(self, session, names, tuple(group))


@dataclass(frozen=True)
class RunSlopes:
    """The same, ready to run on a window's layers."""

    slopes: Slopes
    session: Any
    names: tuple[str, ...]
    outputs: tuple[str, ...]

    def __call__(self, feeds: Feeds, exact: Feeds, errors: Errors) -> dict[str, Array]:
        """Layer output → (parts,) power of its error there."""
        made, parts = self.slopes.made, self.slopes.bench.parts
        own = {name: error for name, error in errors if name in self.names}
        found = {name: np.zeros(len(parts.parts)) for name in self.names}
        generator = generator_of(feeds)
        for _ in range(self.slopes.draws if own else 0):
            for number in range(len(parts.parts)):
                seeds = self._seeds(number, feeds, exact, generator)
                values = run(self.session, self.outputs, {**as_feeds(feeds).arrays, **seeds})
                gradients = dict(zip(self.outputs, values, strict=True))
                for name, error in own.items():
                    effect = np.vdot(gradients[made.gradients[name]], error)
                    found[name][number] += float(effect) ** 2 / self.slopes.draws
        return found

    def _seeds(
        self, number: int, feeds: Feeds, exact: Feeds, generator: np.random.Generator
    ) -> dict[str, Array]:
        """±1 where a part of the outputs lies, 0 elsewhere and where there is padding."""
        parts = self.slopes.bench.parts
        seeds = {
            seed: np.zeros(exact[output].shape, np.float32)
            for output, seed in self.slopes.made.seeds.items()
        }
        output = parts.parts[number][0]
        signs = drawn_signs(generator, output, exact[output].shape, feeds, parts.tokens)
        place = parts.place(number, exact[output].shape)
        seeds[self.slopes.made.seeds[output]][place] = signs[place]
        return seeds


def slopes_of(bench: Bench) -> Slopes | None:
    """None where gradients tell nothing of the outputs' parts, or take too much memory."""
    graph, parts = Graph(bench.pairing.exact), bench.parts.parts
    outputs = list(dict.fromkeys(output for output, _, _ in parts))
    few = 0 < len(parts) * LEAST_DRAWS <= MOST
    if not few or not all(map(graph.is_float, outputs)) or 2 * bench.footprint > MEMORY:
        return None
    made = backward_model(graph, bench.layers, outputs)
    return Slopes(bench, made) if made.gradients else None


def draws_of(parts: int, samples: int, total: int) -> tuple[int, int]:
    """How many samples to look at, and how often to draw signs for each.

    Args:
        parts: of the outputs, each of which takes passes of its own.
        samples: that there are to look at.
        total: samples of the data; passes cost little beside running the models on all of them. 0
            for as few passes as will do.
    """
    spared = int(np.clip(2 * total, FEWEST, MOST)) if total else 0
    passes = max(LEAST_DRAWS * parts, spared)
    looked = max(1, min(samples, SAMPLES, passes // parts))
    return looked, max(1, min(LEAST_DRAWS, passes // (parts * looked)))
