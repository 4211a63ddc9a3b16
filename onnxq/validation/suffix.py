"""What of a model lies behind some of its tensors, to run it again without what lies before.

An error added to a tensor late in a network changes little: the rest need not be computed anew.
Tensors are taken in stages of neighbors in the graph; each has a model of its own, which begins
with them, takes an error for each of them, and reads everything else as values that are known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from onnxq.model.graph import names_in_subgraphs
from onnxq.model.model import Model
from onnxq.model.session import open_session, run
from onnxq.validation.cut import DELTA, RAW, with_deltas

if TYPE_CHECKING:
    from onnxruntime import InferenceSession as Session

Array = NDArray[Any]

STAGE = 16
"""Tensors of a stage, at least: few sessions to open, and little that is computed in vain."""

MEMORY = 1 << 30
"""Bytes that the weights of all stages may take together, about."""


@dataclass(frozen=True)
class Suffix:
    """What lies behind some tensors.

    Attributes:
        proto: begins with the tensors, `tensor@delta` added to each; its inputs have no types.
        reads: what it has to be fed, tensor of the model → its name here.
        tensors: those that the outputs depend on.
        outputs: those of the outputs asked for that depend on tensors.
    """

    proto: ModelProto
    reads: Mapping[str, str]
    tensors: frozenset[str]
    outputs: tuple[str, ...]

    def open(self, known: Mapping[str, Array], **options: Any) -> RunSuffix:
        """A session for it.

        Args:
            known: values of what it reads, for their types.
            options: of `open_session`.

        Raises:
            ModelError: ONNX Runtime refuses it.
        """
        if not self.outputs:
            return RunSuffix(self, None)
        proto = ModelProto()
        proto.CopyFrom(self.proto)
        values = {here: known[name] for name, here in self.reads.items()}
        for info in proto.graph.input:
            if info.name in values:
                value = values[info.name]
                kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
                shape = [None] * value.ndim
                info.CopyFrom(onnx.helper.make_tensor_value_info(info.name, kind, shape))
        return RunSuffix(self, open_session(proto, **options))


@dataclass(frozen=True)
class RunSuffix:
    """A suffix that is ready to run."""

    suffix: Suffix
    session: Session | None

    def __call__(
        self, known: Mapping[str, Array], tensor: str, error: Array
    ) -> dict[str, Array]:  # fmt: skip
        """The outputs that change if one of the tensors has an error.

        Args:
            known: values of what it reads.
            error: of the tensor's shape.

        Raises:
            ModelError: it does not run.
        """
        if self.session is None or tensor not in self.suffix.tensors:
            return {}
        feeds = {here: known[name] for name, here in self.suffix.reads.items()}
        found = run(self.session, self.suffix.outputs, {**feeds, tensor + DELTA: error})
        return dict(zip(self.suffix.outputs, found, strict=True))


def suffixes(
    model: Model, tensors: Sequence[str], outputs: Sequence[str]
) -> list[tuple[tuple[str, ...], Suffix]]:
    """Stages of tensors, each with the model of what lies behind them.

    Args:
        model: what is to be run.
        tensors: float32, computed by nodes, in the order of the graph.
        outputs: of the model.
    """
    # Of half the model on average.
    most = max(1, 2 * MEMORY // max(model.size, 1))
    size = max(STAGE, -(-len(tensors) // most))
    stages = [tuple(tensors[start : start + size]) for start in range(0, len(tensors), size)]
    return [(stage, _suffix(model, stage, outputs)) for stage in stages]


def _suffix(model: Model, tensors: Sequence[str], outputs: Sequence[str]) -> Suffix:
    proto = with_deltas(model, tensors)
    constants = {tensor.name for tensor in proto.graph.initializer}
    constants |= {tensor.values.name for tensor in proto.graph.sparse_initializer}
    nodes = _between(proto.graph.node, {name + DELTA for name in tensors}, set(outputs))
    computed = {name for node in nodes for name in node.output}
    read = {name for node in nodes for name in _names_read(node)}
    # The bodies of If and Loop read tensors of their own, too.
    known = {name for node in proto.graph.node for name in node.output}
    known |= {info.name for info in proto.graph.input}
    fed = sorted((read & known) - computed - constants)
    deltas = [info for info in proto.graph.input if info.name in read & constants]
    part = ModelProto(ir_version=proto.ir_version)
    part.opset_import.extend(proto.opset_import)
    part.functions.extend(proto.functions)
    part.graph.name = "suffix"
    part.graph.node.extend(nodes)
    part.graph.initializer.extend(t for t in proto.graph.initializer if t.name in read)
    part.graph.sparse_initializer.extend(
        t for t in proto.graph.sparse_initializer if t.values.name in read
    )
    part.graph.input.extend([onnx.ValueInfoProto(name=name) for name in fed] + deltas)
    changed = tuple(name for name in outputs if name in computed)
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in changed)
    depended = frozenset(name for name in tensors if name + DELTA in read)
    return Suffix(part, {name.removesuffix(RAW): name for name in fed}, depended, changed)


def _between(nodes: Sequence[NodeProto], sources: set[str], targets: set[str]) -> list[NodeProto]:
    """The nodes on a way from sources to targets, in order."""
    reached, behind = set(sources), []
    for node in nodes:
        if not reached.isdisjoint(_names_read(node)):
            behind.append(node)
            reached.update(node.output)
    needed, found = set(targets), []
    for node in reversed(behind):
        if not needed.isdisjoint(node.output):
            found.append(node)
            needed.update(_names_read(node))
    return found[::-1]


def _names_read(node: NodeProto) -> set[str]:
    return {name for name in node.input if name} | names_in_subgraphs(node)
