"""What of a model lies behind some of its tensors, to run it again without what lies before.

An error added to a tensor late in a network changes little: the rest need not be computed anew.
Tensors are taken in stages of neighbors in the graph; each has a model of its own, which begins
with them, takes an error for each of them, and reads everything else as values that are known.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from onnxq.model.graph import known_as_other, names_read_by
from onnxq.model.model import Model
from onnxq.model.session import open_session, run
from onnxq.validation.cut import DELTA, RAW, needed_for, with_deltas

if TYPE_CHECKING:
    from onnxruntime import InferenceSession as Session

Array = NDArray[Any]

STAGE = 16
"""Tensors of a stage, at least: few sessions to open, and little that is computed in vain."""

MEMORY = 1 << 30
"""Bytes that the weights of all stages may take together, about."""

LARGE = 1 << 27
"""Bytes that the tensors of a stage may take, where they are more than one."""


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


def stages_of(
    tensors: Sequence[str], sizes: Mapping[str, int], weights: int
) -> list[tuple[str, ...]]:
    """The tensors in stages, in their order.

    Args:
        sizes: tensor → its bytes; a stage of large ones is shorter, as all of it is in memory at
            once.
        weights: bytes of the model's.
    """
    # Of half the model on average.
    most = max(1, 2 * MEMORY // max(weights, 1))
    count = max(STAGE, -(-len(tensors) // most))
    stages: list[list[str]] = []
    for name in tensors:
        last = stages[-1] if stages else []
        fits = sum(sizes.get(each, 0) for each in (*last, name)) <= LARGE
        if last and len(last) < count and fits:
            last.append(name)
        else:
            stages.append([name])
    return [tuple(stage) for stage in stages]


def suffix_of(model: Model, tensors: Sequence[str], outputs: Sequence[str]) -> Suffix:
    """What lies behind a stage.

    Args:
        model: what is to be run.
        tensors: float32, computed by nodes, in the order of the graph.
        outputs: of the model.
    """
    proto = with_deltas(model, tensors)
    constants = {tensor.name for tensor in proto.graph.initializer}
    constants |= {tensor.values.name for tensor in proto.graph.sparse_initializer}
    nodes = _between(proto.graph.node, {name + DELTA for name in tensors}, set(outputs))
    nodes = _with_makers(proto.graph.node, nodes, known_as_other(model))
    computed = {name for node in nodes for name in node.output}
    read = {name for node in nodes for name in names_read_by(node)}
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
        if not reached.isdisjoint(names_read_by(node)):
            behind.append(node)
            reached.update(node.output)
    return needed_for(behind, targets)


def _with_makers(
    every: Sequence[NodeProto], nodes: Sequence[NodeProto], others: Collection[str]
) -> list[NodeProto]:
    """The nodes, and those that compute the `others` which they read: only tensors are fed."""
    wanted = {name for node in nodes for name in node.output if name}
    found = []
    for node in reversed(every):
        if not wanted.isdisjoint(node.output):
            found.append(node)
            wanted |= names_read_by(node).intersection(others)
    return found[::-1]
