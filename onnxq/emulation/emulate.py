"""The stage: build the integer machine of a QDQ model and run it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxq.data.ahead import MOST
from onnxq.data.batching import join, samples_in
from onnxq.data.budget import GROUP, USUAL, Feeds, Limits, OneSample, plan_batching
from onnxq.data.gather import run_batch
from onnxq.data.largest import largest_sample
from onnxq.data.source import DataSource
from onnxq.emulation.layers import Status
from onnxq.emulation.plan import plan_emulation
from onnxq.emulation.write import write_machine
from onnxq.errors import DataError, ModelError
from onnxq.model.containers import container
from onnxq.model.files import infer_shapes
from onnxq.model.model import Model
from onnxq.model.normalize import normalize
from onnxq.model.qdq import QdqGraph
from onnxq.model.session import Runtime, run, with_outputs
from onnxq.progress import SILENT, Progress

if TYPE_CHECKING:
    import onnxruntime as ort

Array = NDArray[Any]


@dataclass(frozen=True)
class Counts:
    """Of each node: sums that left int32, sums of pairs that saturated, and those in all."""

    overflows: Counter[str]
    saturated: Counter[str]
    pairs: Counter[str]

    def add(self, other: Counts) -> None:
        """Take those of another run."""
        self.overflows.update(other.overflows)
        self.saturated.update(other.saturated)
        self.pairs.update(other.pairs)


@dataclass(frozen=True)
class Machine:
    """The integer machine of one model.

    Attributes:
        source: the normalized QDQ model it was built from.
        machine: the integer model. Its integer tensors have the names they have in `source`.
        plan: what becomes of each node, Q and DQ aside.
        counters: node → tensor of `machine` that counts the sums that left int32, for nodes whose
            weights do not prove that none does.
        saturations: node → tensors of `machine` that count the sums of pairs which saturated, and
            those in all; on a machine where they may.
        outputs: of the model.
    """

    source: Model
    machine: Model
    plan: Mapping[str, Status]
    counters: Mapping[str, str]
    saturations: Mapping[str, tuple[str, str]]
    outputs: tuple[str, ...]

    @property
    def watched(self) -> list[str]:
        """What is counted beside the outputs."""
        pairs = [name for both in self.saturations.values() for name in both]
        return [*self.counters.values(), *pairs]

    @property
    def runs(self) -> Model:
        """What runs: the machine with its outputs and counters."""
        proto = with_outputs(self.machine, [*self.outputs, *self.watched])
        return infer_shapes(Model.adopt(proto))

    def open(self, runtime: Runtime) -> Emulator:
        """Make it ready to run. Raises `ModelError` where ONNX Runtime refuses the model."""
        return Emulator(
            self.source, self.machine, self.plan, self.counters, self.saturations, self.outputs,
            runtime.open(self.runs, keep_qdq=True),
        )  # fmt: skip


@dataclass(frozen=True)
class Emulator(Machine):
    """The integer machine of one model, ready to run."""

    _session: ort.InferenceSession

    def run(self, feeds: Mapping[str, Array]) -> tuple[list[Array], dict[str, int]]:
        """Outputs of the model; and node → how many of its sums left int32 and wrapped around."""
        outputs, counts = self.run_counted(feeds)
        return outputs, {name: count for name, count in counts.overflows.items() if count}

    def run_counted(self, feeds: Mapping[str, Array]) -> tuple[list[Array], Counts]:
        """Outputs of the model; and what was counted beside them."""
        found = run(self._session, [*self.outputs, *self.watched], feeds)
        outputs, numbers = found[: len(self.outputs)], iter(map(int, found[len(self.outputs) :]))
        overflows = Counter({name: next(numbers) for name in self.counters})
        saturated, pairs = Counter[str](), Counter[str]()
        for name in self.saturations:
            saturated[name], pairs[name] = next(numbers), next(numbers)
        return outputs, Counts(overflows, saturated, pairs)


def machine_of(model: Model, *, saturate: bool = False) -> Machine:
    """Build the integer machine; a model without Q/DQ runs in float.

    Args:
        model: a QDQ model, whoever wrote it.
        saturate: build one that adds pairs of products in 16 bits, as x86 without VNNI does.

    Raises:
        ModelError: the model cannot be rewritten.
    """
    source, _ = normalize(model)
    plan = plan_emulation(QdqGraph(source), saturate=saturate)
    written = write_machine(source, plan)
    outputs = tuple(spec.name for spec in model.outputs)
    return Machine(source, written.model, plan, written.counters, written.saturations, outputs)


def emulator(model: Model) -> Emulator:
    """Build the integer machine and make it ready to run on all cores.

    Raises:
        ModelError: the model cannot be rewritten or ONNX Runtime refuses it.
    """
    return machine_of(model).open(Runtime())


@dataclass(frozen=True)
class Saturation:
    """Of a node's sums of two products: how many there were, and how many saturated."""

    pairs: int
    saturated: int


NO_PAIRS = Saturation(0, 0)


@dataclass(frozen=True, eq=False)
class Emulation(Mapping[str, Array]):
    """What the machine computed. As a mapping: outputs by name, all samples on the first axis.

    Attributes:
        outputs: the same mapping.
        operators: node → its operator, Q and DQ aside.
        plan: node → what became of it.
        overflows: node → how many of its sums left int32 and wrapped around, where any did.
        samples: how many.
        note: what a reader must know of them.
        saturations: node → its sums of pairs, on a machine where these may saturate.
        sizes: output → (samples, axes), the shape of each sample's, where they differ: then the
            smaller ones are filled up with zeros behind their values.
        left_out: output that is no tensor → what it is, such as "a sequence of maps".
    """

    outputs: Mapping[str, Array]
    operators: Mapping[str, str]
    plan: Mapping[str, Status]
    overflows: Mapping[str, int]
    samples: int
    note: str
    saturations: Mapping[str, Saturation] = field(default_factory=dict)
    sizes: Mapping[str, Array] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Array:
        return self.outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)


def emulate(
    model: Model,
    source: DataSource,
    *,
    saturate: bool = False,
    limits: Limits = USUAL,
    progress: Progress = SILENT,
) -> Emulation:
    """Run the integer machine of a model over all samples.

    Args:
        saturate: as in `machine_of`.
        limits: what may run at once; the outputs do not depend on it.

    Raises:
        ModelError: the model cannot be rewritten or run.
        DataError: there are no samples, or outputs of samples differ in shape.
    """
    built = machine_of(model, saturate=saturate)
    sample = OneSample(built.runs, partial(largest_sample, model, source), integers=True)
    batching = plan_batching(sample, limits)
    count = MOST if source.count is None else math.ceil(source.count / batching.size)
    machine = built.open(batching.runtime(count))
    parts: list[list[Array]] = []
    counts = Counts(Counter(), Counter(), Counter())
    samples = 0

    def work(feeds: Feeds) -> tuple[int, list[tuple[list[Array], Counts]]]:
        return samples_in(feeds), [found for _, found in run_batch(machine.run_counted, feeds)]

    batches = (part for batch in source.batches(GROUP) for part in batching.parts(batch.feeds))
    with progress.track("emulate", source.count) as advance:
        for held, found in batching.map(work, batches, batching.workers(count)):
            for outputs, more in found:
                parts.append(outputs)
                counts.add(more)
            samples += held
            advance(held)
    if not samples:
        raise DataError(f"{source.spec}: no samples")
    joined, sizes, left_out = _joined(model, source, parts)
    operators = {node.name: node.op_type for node in machine.source.message.graph.node}
    known = {name: operators[name] for name in machine.plan}
    return Emulation(
        joined, known, machine.plan, {name: n for name, n in counts.overflows.items() if n},
        samples, source.note,
        {name: Saturation(n, counts.saturated[name]) for name, n in counts.pairs.items()}, sizes,
        left_out,
    )  # fmt: skip


def require_tensor_output(model: Model) -> None:
    """Raise `ModelError` where the model says that none of its outputs is a tensor."""
    found = {info.name: container(info.type) for info in model.message.graph.output}
    if all(found.values()):
        gives = ", ".join(f"{name!r} is {what}" for name, what in found.items())
        raise ModelError(
            f"{model.name} gives no arrays to write: {gives}", hint="leave out --output"
        )


def _joined(
    model: Model, source: DataSource, parts: Sequence[Sequence[Array]]
) -> tuple[dict[str, Array], dict[str, Array], dict[str, str]]:
    """Outputs, sizes and what is left out, as `Emulation` has them."""
    joined: dict[str, Array] = {}
    sizes: dict[str, Array] = {}
    left_out: dict[str, str] = {}
    for index, info in enumerate(model.message.graph.output):
        axis, each = source.axes.output(info.name), [part[index] for part in parts]
        if not all(isinstance(part, np.ndarray) for part in each):
            left_out[info.name] = container(info.type) or "no tensor"
            continue
        joined[info.name] = _join(info.name, each, axis)
        if (several := _sizes(each, axis)) is not None:
            sizes[info.name] = several
    return joined, sizes, left_out


def _join(name: str, parts: list[Array], axis: int | None) -> Array:
    """The parts as one, the shorter ones filled up with zeros behind their values."""
    if len({part.ndim for part in parts}) > 1:
        raise DataError(
            f"output {name!r} has another number of axes for some samples",
            hint="emulate them apart",
        )
    shapes = np.array([np.shape(part) for part in parts], int)
    largest = shapes.max(axis=0, initial=0)
    filled = [
        np.pad(part, [(0, 0 if at == axis else most - size)
                      for at, (size, most) in enumerate(zip(part.shape, largest, strict=True))])
        for part in parts
    ]  # fmt: skip
    return join(filled, axis)


def _sizes(parts: list[Array], axis: int | None) -> Array | None:
    """(samples, axes): the shape of each sample; None where all have one."""
    found: list[tuple[int, ...]] = []
    for part in parts:
        count = 1 if axis is None or not part.ndim else part.shape[axis]
        found += [tuple(n for at, n in enumerate(part.shape) if at != axis)] * count
    return np.array(found, np.int64) if len(set(found)) > 1 else None
