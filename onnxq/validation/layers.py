"""Sensitivity: how much of a quantized model's output error each of its layers makes.

Three measurements of a layer, all against the float model's tensor of the same name:

- *as it stands*: its output in the quantized model, with the errors of all layers before it;
- *own error*: its output computed from the float model's values of its inputs;
- *alone*: the model's output when that own error is all that differs from the float model.

The first two need one pass over the data. The last is what ranks: a layer's own error says
little about the output where errors are damped or amplified behind it. It is measured on a few
samples spread over the data by running the float model with the own error added to the layer's
output, once for each layer, so it costs a run of the float model for each layer and sample. A
layer's share is its power among the powers of all: errors of different layers hardly correlate,
so the powers add up, and the report says how well they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxq.data.batching import regroup, samples_in
from onnxq.data.gather import BATCH_SIZE, gather
from onnxq.data.source import DataSource
from onnxq.errors import DataError, ModelError
from onnxq.model.model import Model
from onnxq.model.session import open_session, run, with_outputs
from onnxq.progress import SILENT, Progress
from onnxq.refusal import Refusal
from onnxq.shown import Shown
from onnxq.validation.causes import CauseFinder, Causes
from onnxq.validation.cut import DELTA, OWN, cut, with_deltas
from onnxq.validation.metrics import METRICS
from onnxq.validation.pairing import Pairing, Unmatched, pair

if TYPE_CHECKING:
    from onnxruntime import InferenceSession as Session

Array = NDArray[Any]
Feeds = Mapping[str, Array]

PROBES = 64
"""Samples, spread over the data, on which each layer's effect on the output is measured."""

MEMORY_FOR_TENSORS = 1 << 24
"""Bytes that the paired tensors of one batch may take."""

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
        alone: SQNR of the model's output if only this layer is quantized, dB.
        own: SQNR of the layer's output computed from exact inputs, dB.
        standing: SQNR of the layer's output in the quantized model, dB.
        causes: where its own error comes from.
    """

    name: str
    op_type: str
    output: str
    share: float
    alone: float
    own: float
    standing: float
    causes: Causes


@dataclass(frozen=True, repr=False)
class LayerReport(Shown):
    """The layers of one quantized model, the most harmful first.

    Attributes:
        model: its name.
        samples: samples that `own` and `standing` are measured on.
        probes: samples that shares, `alone` and causes are measured on.
        together: SQNR of the quantized model's output on the probes, dB.
        sum_of_parts: the same if the layers' effects were independent, dB.
        unmatched: quantized layers that cannot be told apart, and why.
        warning: why the numbers may not mean what they say, "" where they do.
    """

    model: str
    samples: int
    probes: int
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
    probes: int = PROBES,
    whole: bool = True,
    batch_size: int = BATCH_SIZE,
    progress: Progress = SILENT,
) -> LayerReport:
    """Measure every layer of a quantized model.

    Args:
        float_model: what the quantized model was made from.
        source: the samples; memory does not grow with their number.
        probes: samples, spread over the data, to measure effects on the output on.
        whole: compare the layers' outputs on all samples, else on the probes only.

    Raises:
        DataError: no samples.
        ModelError: a model cannot be normalized or run.
    """
    chosen = gather(source, probes)
    if not chosen:
        raise DataError(f"{source.spec}: no samples")
    try:
        bench = _open(float_model, quantized, chosen[0])
    except ModelError:
        if source.axes.fixed or samples_in(chosen[0]) == 1:
            raise
        # It may take one sample at a time.
        batch_size, chosen = 1, regroup(chosen, 1)
        bench = _open(float_model, quantized, chosen[0])
    size = int(np.clip(MEMORY_FOR_TENSORS // max(bench.bytes_per_sample, 1), 1, batch_size))
    if not source.axes.fixed:
        chosen = regroup(chosen, size)
    effects, total, causes = _probe(bench, chosen, progress)
    if whole:
        batches: Iterable[Feeds] = (batch.feeds for batch in source.batches(size))
        sums, samples = _stream(bench, batches, source.count, progress)
    else:
        sums, samples = _stream(bench, chosen, None, SILENT)
    counts = (samples, sum(map(samples_in, chosen)))
    return _report(quantized.name, bench.pairing, sums, effects, total, causes, counts)


@dataclass(frozen=True)
class _Bench:
    """What runs: the float model that takes errors, the quantized model whole and in pieces.

    Attributes:
        rounded_weights: pieces of the model without Q/DQ.
        bytes_per_sample: of all paired tensors together.
    """

    pairing: Pairing
    exact: Session
    standing: Session
    own: Session
    rounded_weights: Session
    bytes_per_sample: int

    @property
    def output(self) -> str:
        """The first output, which metrics look at."""
        return self.pairing.exact.proto.graph.output[0].name

    def exact_values(self, feeds: Feeds) -> dict[str, Array]:
        """The float model's output and paired tensors."""
        names = list(dict.fromkeys([self.output, *self.pairing.tensors]))
        return dict(zip(names, run(self.exact, names, feeds), strict=True))

    def output_with(self, feeds: Feeds, tensor: str, error: Array) -> Array:
        """The float model's output if a paired tensor has an error."""
        return run(self.exact, [self.output], {**feeds, tensor + DELTA: error})[0]

    def from_exact(self, session: Session, feeds: Feeds, exact: Feeds) -> dict[str, Array]:
        """Layer output → its value computed from exact inputs, on the float model's scale."""
        names = [layer.output for layer in self.pairing.layers]
        if not names:  # ONNX Runtime takes no names for all
            return {}
        given = {n: self.pairing.to_quantized(n, exact[n]) for n in self.pairing.tensors}
        results = run(session, [name + OWN for name in names], {**given, **feeds})
        return {
            name: self.pairing.to_exact(name, value)
            for name, value in zip(names, results, strict=True)
        }


def _open(float_model: Model, quantized: Model, feeds: Feeds) -> _Bench:
    """Pair the models and open their sessions; tensors of different shapes are not paired.

    Raises `ModelError` where what a model records of its scales does not fit its tensors.
    """
    pairing = pair(float_model, quantized)
    session = open_session(with_outputs(pairing.quantized, pairing.tensors), keep_qdq=True)
    found = dict(zip(pairing.tensors, run(session, pairing.tensors, feeds), strict=True))
    exact = open_session(with_deltas(pairing.exact, pairing.tensors))
    wanted = dict(zip(pairing.tensors, run(exact, pairing.tensors, feeds), strict=True))
    damaged = pairing.contradiction({name: values.shape for name, values in wanted.items()})
    if damaged:
        raise ModelError(f"{quantized.name} records a scale that does not fit {damaged!r}")
    refused = {
        name: Refusal(
            f"{name!r} is {_times(wanted[name].shape)} in the float model and "
            f"{_times(found[name].shape)} in the quantized one"
        )
        for name in pairing.tensors
        if wanted[name].shape != found[name].shape
    }
    if refused:
        pairing = pair(float_model, quantized, refused=refused)
        exact = open_session(with_deltas(pairing.exact, pairing.tensors))
    output = pairing.quantized.proto.graph.output[0].name
    standing = dict.fromkeys([output, *(layer.output for layer in pairing.layers)])
    return _Bench(
        pairing, exact,
        open_session(with_outputs(pairing.quantized, standing), keep_qdq=True),
        open_session(cut(pairing.quantized, pairing.tensors), keep_qdq=True),
        open_session(cut(pairing.stripped, pairing.tensors)),
        sum(wanted[name].nbytes for name in pairing.tensors) // samples_in(feeds),
    )  # fmt: skip


def _times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "a scalar"


def _probe(
    bench: _Bench, probes: Sequence[Feeds], progress: Progress
) -> tuple[dict[str, Array], Array, dict[str, Causes]]:
    """(signal, noise) powers of the output for each layer alone and for all; the causes."""
    layers = bench.pairing.layers
    effects = {layer.output: np.zeros(2) for layer in layers}
    total = np.zeros(2)
    causes = CauseFinder(bench.pairing)
    with progress.track("measure layers", len(layers) * len(probes)) as advance:
        for feeds in probes:
            exact = bench.exact_values(feeds)
            own = bench.from_exact(bench.own, feeds, exact)
            rounded = bench.from_exact(bench.rounded_weights, feeds, exact)
            causes.add({**exact, **feeds}, own, rounded)
            wanted = exact[bench.output]
            total += _powers(run(bench.standing, [bench.output], feeds)[0], wanted)
            for name in effects:
                error = (own[name] - exact[name]).astype(np.float32)
                effects[name] += _powers(bench.output_with(feeds, name, error), wanted)
                advance(1)
    return effects, total, causes.finish()


def _stream(
    bench: _Bench, batches: Iterable[Feeds], count: int | None, progress: Progress
) -> tuple[dict[str, Array], int]:
    """(2, 2) powers of each layer, as it stands and its own; and the number of samples."""
    names = [layer.output for layer in bench.pairing.layers]
    sums = {name: np.zeros((2, 2)) for name in names}
    samples = 0
    if not names:
        return sums, samples
    with progress.track("compare layers", count) as advance:
        for feeds in batches:
            exact = bench.exact_values(feeds)
            standing = run(bench.standing, names, feeds)
            for name, value in zip(names, standing, strict=True):
                sums[name][0] += _powers(bench.pairing.to_exact(name, value), exact[name])
            del standing
            for name, value in bench.from_exact(bench.own, feeds, exact).items():
                sums[name][1] += _powers(value, exact[name])
            samples += samples_in(feeds)
            advance(samples_in(feeds))
    return sums, samples


def _powers(got: Array, wanted: Array) -> Array:
    return METRICS["sqnr"].terms(got, wanted)


def _decibels(powers: Array) -> float:
    return METRICS["sqnr"].finish(powers)


def _report(
    name: str,
    pairing: Pairing,
    sums: Mapping[str, Array],
    effects: Mapping[str, Array],
    total: Array,
    causes: Mapping[str, Causes],
    counts: tuple[int, int],
) -> LayerReport:
    limit = total[1] * 10 ** (TOO_LOUD / 10)
    loud = [layer for layer in pairing.layers if effects[layer.output][1] > limit]
    kept = [layer for layer in pairing.layers if layer not in loud]
    noise = sum((effects[layer.output][1] for layer in kept), 0.0)
    layers = [
        LayerError(
            layer.name, layer.op_type, layer.output,
            100 * float(effects[layer.output][1] / noise) if noise > 0 else 0.0,
            _decibels(effects[layer.output]), _decibels(sums[layer.output][1]),
            _decibels(sums[layer.output][0]), causes[layer.output],
        )
        for layer in kept
    ]  # fmt: skip
    unmatched = pairing.unmatched + tuple(
        Unmatched(
            layer.name, layer.op_type,
            f"{layer.output!r} has other values: by itself the layer would change the output "
            "more than the whole quantized model does",
        )
        for layer in loud
    )  # fmt: skip
    foreign = bool(loud) or noise > limit
    return LayerReport(
        name, *counts, _decibels(total), _decibels(np.array([total[0], noise])),
        tuple(sorted(layers, key=lambda layer: -layer.share)), unmatched,
        OTHER_SCALES if foreign else "",
    )  # fmt: skip
