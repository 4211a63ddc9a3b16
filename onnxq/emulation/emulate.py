"""The stage: build the integer machine of a QDQ model and run it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from onnxq.emulation.plan import Status, plan_emulation
from onnxq.emulation.qdq import QdqGraph
from onnxq.emulation.write import write_machine
from onnxq.model.model import Model
from onnxq.model.normalize import normalize
from onnxq.model.session import open_session, run, with_outputs

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


def emulator(model: Model) -> Emulator:
    """Build the integer machine; a model without Q/DQ runs in float.

    Raises:
        ModelError: the model cannot be rewritten or ONNX Runtime refuses it.
    """
    source, _ = normalize(model)
    plan = plan_emulation(QdqGraph(source))
    machine, counters = write_machine(source, plan)
    outputs = tuple(spec.name for spec in model.outputs)
    proto = with_outputs(machine, [*outputs, *counters.values()])
    session = open_session(proto, keep_qdq=True)
    return Emulator(source, machine, plan, counters, session, outputs)
