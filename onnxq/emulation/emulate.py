"""The stage: build the integer machine of a QDQ model and run it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from onnxq.data.batching import join
from onnxq.data.gather import run_batch
from onnxq.data.source import DataSource
from onnxq.emulation.layers import Status
from onnxq.emulation.plan import plan_emulation
from onnxq.emulation.write import write_machine
from onnxq.errors import DataError
from onnxq.model.model import Model
from onnxq.model.normalize import normalize
from onnxq.model.qdq import QdqGraph
from onnxq.model.session import open_session, run, with_outputs
from onnxq.progress import SILENT, Progress

if TYPE_CHECKING:
    import onnxruntime as ort

Array = NDArray[Any]


@dataclass(frozen=True)
class Emulator:
    """The integer machine of one model, ready to run.

    Attributes:
        source: the normalized QDQ model it was built from.
        machine: the integer model. Its integer tensors have the names they have in `source`.
        plan: what becomes of each node, Q and DQ aside.
        counters: node → tensor of `machine` that counts the sums that left int32, for nodes whose
            weights do not prove that none does.
    """

    source: Model
    machine: Model
    plan: Mapping[str, Status]
    counters: Mapping[str, str]
    _session: ort.InferenceSession
    _outputs: tuple[str, ...]

    def run(self, feeds: Mapping[str, Array]) -> tuple[list[Array], dict[str, int]]:
        """Outputs of the model; and node → how many of its sums left int32 and wrapped around."""
        found = run(self._session, [*self._outputs, *self.counters.values()], feeds)
        outputs, counts = found[: len(self._outputs)], found[len(self._outputs) :]
        overflows = {
            name: int(count) for name, count in zip(self.counters, counts, strict=True) if count
        }
        return outputs, overflows


def emulator(model: Model, *, threads: int = 0) -> Emulator:
    """Build the integer machine; a model without Q/DQ runs in float.

    Args:
        model: a QDQ model, whoever wrote it.
        threads: as in `open_session`.

    Raises:
        ModelError: the model cannot be rewritten or ONNX Runtime refuses it.
    """
    source, _ = normalize(model)
    plan = plan_emulation(QdqGraph(source))
    machine, counters = write_machine(source, plan)
    outputs = tuple(spec.name for spec in model.outputs)
    proto = with_outputs(machine, [*outputs, *counters.values()])
    session = open_session(proto, keep_qdq=True, threads=threads)
    return Emulator(source, machine, plan, counters, session, outputs)


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
    """

    outputs: Mapping[str, Array]
    operators: Mapping[str, str]
    plan: Mapping[str, Status]
    overflows: Mapping[str, int]
    samples: int
    note: str

    def __getitem__(self, name: str) -> Array:
        return self.outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)


def emulate(
    model: Model, source: DataSource, *, batch_size: int, progress: Progress = SILENT
) -> Emulation:
    """Run the integer machine of a model over all samples.

    Raises:
        ModelError: the model cannot be rewritten or run.
        DataError: there are no samples, or outputs of samples differ in shape.
    """
    machine = emulator(model)
    parts: list[list[Array]] = []
    overflows: dict[str, int] = {}
    samples = 0
    with progress.track("emulate", source.count) as advance:
        for batch in source.batches(batch_size):
            for _, (outputs, beyond) in run_batch(machine.run, batch.feeds):
                parts.append(outputs)
                for name, count in beyond.items():
                    overflows[name] = overflows.get(name, 0) + count
            samples += len(batch)
            advance(len(batch))
    if not samples:
        raise DataError(f"{source.spec}: no samples")
    joined = {
        spec.name: _join(spec.name, [part[index] for part in parts], source.axes.output(spec.name))
        for index, spec in enumerate(model.outputs)
    }
    operators = {node.name: node.op_type for node in machine.source.proto.graph.node}
    known = {name: operators[name] for name in machine.plan}
    return Emulation(joined, known, machine.plan, overflows, samples, source.note)


def _join(name: str, parts: list[Array], axis: int | None) -> Array:
    try:
        return join(parts, axis)
    except ValueError:
        raise DataError(
            f"output {name!r} has another shape for some samples", hint="emulate them apart"
        ) from None
