"""What runs to measure layers: the float model, the quantized one whole and in pieces."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from onnxq.closeness import Sums, add_sums, as_array, closeness, is_float, sums_of
from onnxq.data.ahead import WORKERS
from onnxq.data.batching import samples_in
from onnxq.errors import ModelError
from onnxq.model.model import Model
from onnxq.model.session import open_session, run, with_outputs
from onnxq.refusal import Refusal
from onnxq.validation.cut import OWN, cut
from onnxq.validation.interface import choose_outputs
from onnxq.validation.pairing import Pairing, pair
from onnxq.validation.powers import difference, power
from onnxq.validation.suffix import RunSuffix, suffixes

if TYPE_CHECKING:
    from onnxruntime import InferenceSession as Session

Array = NDArray[Any]
Feeds = Mapping[str, Array]

THREADS = max(1, (os.cpu_count() or 1) // WORKERS)
"""Threads of a session, beside which others run."""


@dataclass(frozen=True)
class Bench:
    """Sessions, and the tensors they have in common.

    Attributes:
        outputs: names of the model's outputs that errors are measured at.
        parts: of these outputs, what has a signal and a noise of its own.
        exact: the float model.
        standing: the quantized model.
        own: its layers, each fed with the float model's values.
        rounded_weights: the same of it without Q/DQ.
        behind: layer output → the float model from its stage on.
        bytes_per_sample: of all paired tensors together.
    """

    pairing: Pairing
    outputs: tuple[str, ...]
    parts: Parts
    exact: Session
    standing: Session
    own: Session
    rounded_weights: Session
    behind: Mapping[str, RunSuffix]
    bytes_per_sample: int

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers' outputs."""
        return tuple(layer.output for layer in self.pairing.layers)

    def exact_values(self, feeds: Feeds) -> dict[str, Array]:
        """The float model's outputs, paired tensors, and what runs behind them read."""
        names = [output.name for output in self.exact.get_outputs()]
        return {**feeds, **dict(zip(names, run(self.exact, names, feeds), strict=True))}

    def standing_values(self, feeds: Feeds) -> tuple[dict[str, Array], dict[str, Array]]:
        """The quantized model's outputs, and its layers' on the float model's scale."""
        names = list(dict.fromkeys([*self.outputs, *self.layers]))
        found = dict(zip(names, run(self.standing, names, feeds), strict=True))
        outputs = {name: found[name] for name in self.outputs}
        return outputs, {name: self.pairing.to_exact(name, found[name]) for name in self.layers}

    def with_error(self, known: Feeds, tensor: str, error: Array) -> dict[str, Array]:
        """The float model's outputs if a layer's output has an error."""
        changed = self.behind[tensor](known, tensor, error)
        return {name: changed.get(name, known[name]) for name in self.outputs}

    def from_exact(self, session: Session, feeds: Feeds, exact: Feeds) -> dict[str, Array]:
        """Layer output → its value computed from exact inputs, on the float model's scale."""
        if not self.layers:  # ONNX Runtime takes no names for all
            return {}
        given = {n: self.pairing.to_quantized(n, exact[n]) for n in self.pairing.tensors}
        results = run(session, [name + OWN for name in self.layers], {**given, **feeds})
        return {
            name: self.pairing.to_exact(name, value)
            for name, value in zip(self.layers, results, strict=True)
        }


@dataclass(frozen=True)
class Parts:
    """The outputs, or groups of their slices, that have a signal and a noise of their own.

    Attributes:
        parts: output, axis and slices of each; axis None for all of it.
    """

    parts: tuple[tuple[str, int | None, tuple[int, ...]], ...]

    def signal(self, wanted: Mapping[str, Array]) -> Array:
        """(parts,): Σ x²."""
        return np.array([power(_of(part, wanted)) for part in self.parts])

    def noise(self, got: Mapping[str, Array], wanted: Mapping[str, Array]) -> Array:
        """(parts,): Σ (x − y)²; of outputs of two shapes Σ x², as if there were none."""
        pairs = ((_of(part, got), _of(part, wanted)) for part in self.parts)
        return np.array([power(difference(one, other)) for one, other in pairs])


def _of(part: tuple[str, int | None, tuple[int, ...]], values: Mapping[str, Array]) -> Array:
    name, axis, slices = part
    whole = as_array(values[name])
    if not is_float(whole):
        whole = whole.astype(np.float64)
    if axis is None:
        return whole
    return np.take(whole, [place for place in slices if place < whole.shape[axis]], axis)


def _parts(exact: Session, outputs: Sequence[str], batches: Iterable[Feeds]) -> Parts:
    """The parts of a float model's outputs: groups, else the whole; of float ones if there are."""
    sums: dict[str, Sums] = {}
    for feeds in batches:
        arrays = {name: feeds[name] for name in outputs if name in feeds}
        names = [name for name in outputs if name not in feeds]
        arrays |= {
            name: as_array(value)
            for name, value in zip(names, run(exact, names, feeds), strict=True)
        }
        numeric = {name: value for name, value in arrays.items() if value.dtype.kind not in "OSU"}
        kept = {name: value for name, value in numeric.items() if is_float(value)} or numeric
        add_sums(sums, sums_of(kept, kept, samples_in(feeds)))
    return Parts(
        tuple(
            (part.output, part.axis, part.slices)
            for each in closeness(sums)
            for part in (each.groups or (each.whole,))
        )
    )


def open_bench(
    float_model: Model, quantized: Model, batches: Sequence[Feeds], outputs: Sequence[str] = ()
) -> Bench:
    """Pair the models and open their sessions; tensors of different shapes are not paired.

    Args:
        batches: some samples, to see shapes and the outputs' parts on.
        outputs: names of outputs to measure at, () for all.

    Raises:
        UsageError: no such output.
        ModelError: a model does not run, or what it records of its scales does not fit its tensors.
    """
    chosen, feeds = choose_outputs(float_model, outputs), batches[0]
    pairing = pair(float_model, quantized)
    wanted = _values(pairing.exact, pairing.tensors, feeds)
    found = _values(pairing.quantized, pairing.tensors, feeds, keep_qdq=True)
    damaged = pairing.contradiction({name: wanted[name].shape for name in pairing.tensors})
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
    layers = [layer.output for layer in pairing.layers]
    stages = suffixes(pairing.exact, layers, chosen)
    reads = {name for _, suffix in stages for name in suffix.reads}
    shown = sorted({*chosen, *pairing.tensors, *reads} - set(feeds))
    exact = _open(with_outputs(pairing.exact, shown))
    known = {**feeds, **dict(zip(shown, run(exact, shown, feeds), strict=True))}
    return Bench(
        pairing, chosen, _parts(exact, chosen, batches), exact,
        _open(with_outputs(pairing.quantized, dict.fromkeys([*chosen, *layers])), keep_qdq=True),
        _open(cut(pairing.quantized, pairing.tensors), keep_qdq=True),
        _open(cut(pairing.stripped, pairing.tensors)),
        {name: opened for stage, suffix in stages
         for opened in [suffix.open(known, threads=THREADS, yields=True)] for name in stage},
        sum(known[name].nbytes for name in pairing.tensors) // samples_in(feeds),
    )  # fmt: skip


def _open(model: ModelProto, *, keep_qdq: bool = False) -> Session:
    """Several batches run side by side, each with its part of the cores."""
    return open_session(model, keep_qdq=keep_qdq, threads=THREADS, yields=True)


def _values(
    model: Model, tensors: Sequence[str], feeds: Feeds, *, keep_qdq: bool = False
) -> dict[str, Array]:
    session = open_session(with_outputs(model, tensors), keep_qdq=keep_qdq)
    return dict(zip(tensors, run(session, tensors, feeds), strict=True))


def _times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "a scalar"
