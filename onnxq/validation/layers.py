"""Sensitivity: how much of a quantized model's output error each of its layers makes.

Three measurements of a layer, all against the float model's tensor of the same name:

- *as it stands*: its output in the quantized model, with the errors of all layers before it;
- *own error*: its output computed from the float model's values of its inputs;
- *alone*: the model's output when that own error is all that differs from the float model.

The first two need one pass over the data. The last is what ranks: a layer's own error says
little about the output where errors are damped or amplified behind it. It takes a run of what lies
behind the layer for each layer and sample. So that of all layers is estimated, by the gradients of
the outputs, or where there is none by runs on a few samples; the worst of them are run on all
probes, and how these differ scales the others. A layer's share is its power among the powers of
all: errors of different layers hardly correlate, so the powers add up, and the report says how
well they do.

Of several outputs, or groups of slices in one, each error counts by its ratio to the signal there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.closeness import decibels
from onnxq.data.ahead import map_ahead
from onnxq.data.batching import samples_in
from onnxq.data.budget import GROUP, USUAL, Limits
from onnxq.data.gather import gather
from onnxq.data.largest import largest_sample
from onnxq.data.source import DataSource
from onnxq.model.model import Model
from onnxq.progress import SILENT, Progress
from onnxq.shown import Shown
from onnxq.validation.causes import UNKNOWN, CauseFinder, Causes
from onnxq.validation.effects import Effects, Looks, Powers, added, measure_effects
from onnxq.validation.first_order import draws_of, slopes_of
from onnxq.validation.pairing import Pairing, Unmatched
from onnxq.validation.powers import power
from onnxq.validation.workbench import Bench, OpenWindow, open_bench

Array = NDArray[Any]
Feeds = Mapping[str, Array]

PROBES = 64
"""Samples, spread over the data, on which the worst layers' effects on the outputs are measured."""

FIRST_LOOK = 8
"""Layers' effects are run on so few samples that it takes no more runs over all samples."""

LEAST = 2
"""The same, at least."""

FEW = 8
"""Samples that shapes, parts of outputs and causes are told from."""

MEMORY_FOR_PROBES = 1 << 27
"""Bytes that the probes may take, where they are more than `FEW`."""

TOO_LOUD = 10.0
"""dB by which layers may exceed the whole quantized model before they are disbelieved."""

OTHER_SCALES = (
    "the layers disagree with the output: the quantized model seems to scale channels without "
    "recording it, so give the float model that was quantized (after equalization)"
)


@dataclass(frozen=True)
class LayerError:
    """One layer.

    Attributes:
        name, op_type: its weighted node, or the operator that reads quantized values.
        output: the tensor compared.
        share: of the output error, %, all layers together 100.
        alone: SQNR of the model's worst output if only this layer is quantized, dB.
        own: SQNR of the layer's output computed from exact inputs, dB.
        standing: SQNR of the layer's output in the quantized model, dB.
        causes: where its own error comes from.
        estimated: whether share and `alone` follow from gradients, or from runs on a few samples.
    """

    name: str
    op_type: str
    output: str
    share: float
    alone: float
    own: float
    standing: float
    causes: Causes
    estimated: bool = False


@dataclass(frozen=True, repr=False)
class LayerReport(Shown):
    """The layers of one quantized model, the most harmful first.

    Attributes:
        model: its name.
        samples: samples that `own` and `standing` are measured on.
        probes: samples that shares and `alone` of the worst layers are measured on.
        first_look: samples that those of the others were estimated on.
        together: SQNR of the quantized model's worst output on the probes, dB.
        sum_of_parts: the same if the layers' effects were independent, dB.
        unmatched: quantized layers that cannot be told apart, and why.
        warning: why the numbers may not mean what they say, "" where they do.
    """

    model: str
    samples: int
    probes: int
    first_look: int
    together: float
    sum_of_parts: float
    layers: tuple[LayerError, ...]
    unmatched: tuple[Unmatched, ...]
    warning: str


def measure_layers(
    float_model: Model,
    quantized: Model,
    source: DataSource,
    *,
    outputs: Sequence[str] = (),
    probes: int = PROBES,
    first_look: int | None = None,
    whole: bool = True,
    roughly: bool = False,
    limits: Limits = USUAL,
    largest: Feeds | None = None,
    progress: Progress = SILENT,
) -> LayerReport:
    """Measure every layer of a quantized model.

    Args:
        float_model: what the quantized model was made from.
        source: the samples; memory does not grow with their number.
        outputs: names of the outputs that errors are measured at, () for all.
        probes: samples, spread over the data, to measure effects on the outputs on; fewer where
            they are large.
        first_look: run all layers on so many of them, and the worst on the others; by default
            all are run on all where that costs a few runs of the model over all samples, and else
            estimated by gradients.
        whole: compare the layers' outputs on all samples, else on the probes only.
        roughly: only to name the worst layers: few gradients are taken, and no causes looked for.
        limits: what may run at once. The numbers do not depend on its memory.
        largest: the largest sample of the source, if known.

    Raises:
        DataError: no samples.
        ModelError: a model cannot be normalized or run.
        UsageError: no such output.
    """
    if largest is None:
        largest = largest_sample(float_model, source)
    chosen = gather(source, _probes(probes, largest), size=1)
    bench = open_bench(
        float_model, quantized, _some(chosen), outputs, limits=limits, largest=largest
    )
    count = sum(map(samples_in, chosen))
    looks = _looks(bench, chosen, first_look, 0 if roughly else source.count or count)
    few = bench.pace.batches(_spread(chosen, FEW))
    del chosen
    effects, errors = measure_effects(bench, looks, progress)
    causes = {} if roughly else _causes(bench, few)
    if whole and (source.count is None or source.count > count):
        size = bench.pace.size or GROUP
        total = source.count and source.count * len(bench.windows)
        with progress.track("compare layers", total) as advance:
            errors = added(
                bench, lambda: (batch.feeds for batch in source.batches(size)), advance=advance
            )
    bench.close()
    return _report(quantized.name, bench.pairing, errors, effects, causes, count)


def _probes(most: int, largest: Feeds) -> int:
    """How many samples to hold in memory."""
    taken = sum(values.nbytes for values in largest.values()) // samples_in(largest)
    return int(np.clip(MEMORY_FOR_PROBES // max(taken, 1), min(FEW, most), most))


def _some(batches: Sequence[Feeds]) -> list[Feeds]:
    """The first batches, of `FEW` samples or a few more."""
    found: list[Feeds] = []
    for feeds in batches:
        if sum(map(samples_in, found)) < FEW:
            found.append(feeds)
    return found


def _affordable(layers: int, samples: int) -> int:
    """Samples that all layers can be run on for `FIRST_LOOK` runs over all samples."""
    return max(LEAST, FIRST_LOOK * samples // max(layers, 1))


def _looks(bench: Bench, units: Sequence[Feeds], first: int | None, total: int) -> Looks:
    """The probes, and which of them, spread evenly over all, layers are estimated on.

    Args:
        units: single samples, or whole batches where the model fixes them.
        first: samples to run all layers on; None for gradients, where there are and runs on all
            probes would take long.
        total: samples of the data; 0 to take as few gradients as will do.
    """
    probes, singly = sum(map(samples_in, units)), 0
    runs = _affordable(len(bench.layers), total) if first is None else first
    slopes = slopes_of(bench) if first is None and runs < probes else None
    if slopes is not None:
        singly, draws = draws_of(len(bench.parts.parts), probes, total)
        slopes = replace(slopes, draws=draws)
    batches = bench.pace.batches
    return Looks(slopes, _spread(units, singly), batches(_spread(units, runs)), batches(units))


def _spread(units: Sequence[Feeds], count: int) -> list[Feeds]:
    """So many samples, or a few more."""
    wanted = -(-count // samples_in(units[0]))
    if wanted >= len(units):
        return list(units)
    places = {round((2 * i + 1) * len(units) / (2 * wanted) - 0.5) for i in range(wanted)}
    return [units[place] for place in sorted(places)]


def _causes(bench: Bench, batches: Sequence[Feeds]) -> dict[str, Causes]:
    """The causes of the layers' own errors, on a few samples."""
    found: dict[str, Causes] = {}
    for opened in bench.open():
        if opened.window.layers:
            found |= _causes_in(opened, batches)
    return found


def _causes_in(opened: OpenWindow, batches: Sequence[Feeds]) -> dict[str, Causes]:
    finder = CauseFinder(opened.bench.pairing, opened.window.layers)

    sessions = opened.own, opened.rounded_weights

    def work(feeds: Feeds) -> tuple[Any, ...]:
        exact = opened.exact_values(feeds)
        own, rounded = (
            {
                name: power(opened.real(name, error, feeds))
                for name, error in opened.errors(opened.from_exact(each, feeds, exact), exact)
            }
            for each in sessions
        )
        return own, rounded, finder.look(opened.kept(exact, feeds))

    workers = opened.bench.pace.workers
    for own, rounded, inputs in map_ahead(work, batches, workers=workers, ahead=1):
        finder.add(own, rounded, inputs)
    return finder.finish()


def _report(
    name: str,
    pairing: Pairing,
    errors: Powers,
    effects: Effects,
    causes: Mapping[str, Causes],
    probes: int,
) -> LayerReport:
    limit = effects.relative(effects.total) * 10 ** (TOO_LOUD / 10)
    relative = {each: effects.relative(noise) for each, noise in effects.noise.items()}
    loud = [layer for layer in pairing.layers if relative[layer.output] > limit]
    kept = [layer for layer in pairing.layers if layer not in loud]
    whole = sum((relative[layer.output] for layer in kept), 0.0)
    layers = [
        LayerError(
            layer.name, layer.op_type, layer.output,
            100 * relative[layer.output] / whole if whole > 0 else 0.0,
            effects.sqnr(effects.noise[layer.output]), decibels(signal, own),
            decibels(signal, standing), causes.get(layer.output, UNKNOWN),
            layer.output in effects.estimated,
        )
        for layer in kept
        for signal, standing, own in [map(float, errors.layers[layer.output])]
    ]  # fmt: skip
    unmatched = pairing.unmatched + tuple(
        Unmatched(
            layer.name, layer.op_type,
            f"{layer.output!r} has other values: by itself the layer would change the output "
            "more than the whole quantized model does",
        )
        for layer in loud
    )  # fmt: skip
    foreign = bool(loud) or whole > limit
    noise = sum((effects.noise[layer.output] for layer in kept), np.zeros(len(effects.signal)))
    return LayerReport(
        name, errors.samples, probes, effects.first_look, effects.sqnr(effects.total),
        effects.sqnr(noise), tuple(sorted(layers, key=lambda layer: -layer.share)), unmatched,
        OTHER_SCALES if foreign else "",
    )  # fmt: skip
