"""Hand out activations in the layout the convolutions compute in, without reordering them.

ONNX Runtime's CPU convolutions work on blocks of channels, [samples, channels / block, height,
width, block], and a ReorderOutput node brings each graph output back to [samples, channels,
height, width]. Reordering every activation costs half as much as the inference itself; whoever
only counts values can do without. The graph that ONNX Runtime optimized is saved, the
ReorderOutput nodes of outputs are taken out, and it is opened again as it is: the same kernels
compute the same bits.

The block size is not documented, so it is found by comparing the two layouts on a small model.
Where that fails, or a graph cannot be saved, the caller gets the usual outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from onnxq.errors import ModelError
from onnxq.model import external
from onnxq.model.graph import names_read_by
from onnxq.model.session import Runtime, run, with_graph

if TYPE_CHECKING:
    import onnxruntime as ort

Array = NDArray[Any]

DOMAIN = "com.microsoft.nchwc"
SIZES = (16, 8, 4, 32)
"""Block sizes to look for."""

LARGEST = 1 << 29
"""Bytes of weights above which a model is not saved and opened a second time."""


@dataclass(frozen=True)
class Observed:
    """One batch of one tensor, as the runtime handed it out.

    Attributes:
        values: of the tensor's shape; where `block` is not 0 its channels are padded to whole
            blocks and its memory is [samples, channels / block, …, block].
        block: channels of a block; 0 for the usual layout.
        channels: number of channels without the padding; only with a block.
    """

    values: Array
    block: int = 0
    channels: int = 0

    @property
    def plain(self) -> Array:
        """The values in the usual layout; a copy where they are in blocks."""
        if not self.block:
            return self.values
        samples, padded, *positions = self.values.shape
        blocks = self.values.reshape(samples, padded // self.block, -1, self.block)
        usual = blocks.swapaxes(2, 3).reshape(samples, padded, *positions)
        return usual[:, : self.channels]


@dataclass(frozen=True)
class Observer:
    """A session and the tensors it hands out.

    Attributes:
        fetched: tensor → the output that holds it.
        blocked: tensor → number of its channels, where it comes in blocks.
    """

    session: ort.InferenceSession
    fetched: Mapping[str, str]
    blocked: Mapping[str, int] = field(default_factory=dict)
    block: int = 0

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Observed]:
        """The tensors for one batch. Raises `ModelError` as `session.run` does."""
        if not self.fetched:
            # ONNX Runtime refuses to compute nothing.
            return {}
        found = run(self.session, list(self.fetched.values()), feeds)
        return {
            name: Observed(values, self.block, self.blocked[name])
            if name in self.blocked
            else Observed(values)
            for name, values in zip(self.fetched, found, strict=True)
        }


def open_observer(proto: ModelProto, names: Sequence[str], runtime: Runtime) -> Observer:
    """Open a model to hand out some of its outputs, in blocks where that saves work."""
    usual = {name: name for name in names}
    convolves = any(node.op_type == "Conv" for node in proto.graph.node)
    block = block_size() if convolves else 0
    # Outputs that are there for no one go too, as what is optimized is no longer to be held up.
    worth = block > 0 if convolves else len(proto.graph.output) > len(names)
    weights = sum(external.byte_size(tensor) or 0 for tensor in proto.graph.initializer)
    if runtime.provider == "cpu" and worth and names and weights <= LARGEST:
        try:
            return _without_reordering(proto, names, runtime, block)
        except ModelError:
            pass
    return Observer(runtime.open(proto), usual)


def _without_reordering(
    proto: ModelProto, names: Sequence[str], runtime: Runtime, block: int
) -> Observer:
    _, optimized = with_graph(partial(runtime.open, proto))
    outputs = {output.name for output in optimized.graph.output}
    used = {name for node in optimized.graph.node for name in node.input}
    inner: dict[str, str] = {}
    channels: dict[str, int] = {}
    nodes = []
    for node in optimized.graph.node:
        attributes = {a.name: a.i for a in node.attribute}
        reorders = (node.domain, node.op_type) == (DOMAIN, "ReorderOutput")
        if reorders and node.output[0] in outputs and not attributes.get("channels_last"):
            inner[node.output[0]] = node.input[0]
            channels[node.output[0]] = attributes["channels"]
            if node.output[0] not in used:
                continue
        nodes.append(node)
    fetched = {name: inner.get(name, name) for name in names}
    infos = {output.name: output for output in optimized.graph.output}
    wanted = sorted(set(fetched.values()))
    kept = [infos.get(name) or onnx.ValueInfoProto(name=name) for name in wanted]
    del optimized.graph.node[:]
    optimized.graph.node.extend(_needed(nodes, wanted))
    del optimized.graph.output[:]
    optimized.graph.output.extend(kept)
    session = runtime.open(optimized, optimize=False)
    blocked = {name: channels[name] for name in names if name in channels}
    return Observer(session, fetched, blocked, block)


def _needed(nodes: Sequence[NodeProto], names: Iterable[str]) -> list[NodeProto]:
    """Those that some tensors depend on. What only other outputs need would keep tensors alive."""
    needed, found = set(names), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed |= names_read_by(node)
            found.append(node)
    return found[::-1]


@lru_cache(maxsize=1)
def block_size() -> int:
    """Channels of a block on this machine; 0 where ONNX Runtime uses none, or in another way."""
    helper = onnx.helper
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((64, 64, 1, 1)).astype(np.float32)
    info = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 64, 3, 5])
        for name in ("x", "y")
    ]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[1, 1])], "probe",
        info[:1], info[1:], [onnx.numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    feeds = {"x": rng.standard_normal((2, 64, 3, 5)).astype(np.float32)}
    runtime = Runtime(threads=1)
    try:
        (expected,) = run(runtime.open(proto), ["y"], feeds)
        observer = _without_reordering(proto, ["y"], runtime, 0)
        values = observer.run(feeds)["y"].values
    except ModelError:
        return 0
    if not observer.blocked or values.shape != expected.shape:
        return 0
    for size in SIZES:
        if np.array_equal(Observed(values, size, 64).plain, expected):
            return size
    return 0
