"""Shapes that a model computes at run time, found out before it.

Exporters write a Reshape of a batch of unknown size as a chain of Shape, Slice and Concat. What
such a chain gives is known once it has run for some sizes; ONNX's shape inference gives up on many.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from onnxq.model.files import infer_shapes
from onnxq.model.graph import Graph, Node
from onnxq.model.model import Model
from onnxq.model.operators import ScaleRule, operator_of
from onnxq.model.rewrite import constant, edit

Array = NDArray[Any]

ROUNDS = 64
"""Reshapes in a row that are resolved: the shape of one may depend on that of the one before."""

_PRIMES = (
    (10007, 10009, 10037, 10039, 10061, 10067, 10069, 10079),
    (20011, 20021, 20023, 20029, 20047, 20051, 20063, 20071),
)
"""Sizes given to the axes of unknown size in two trials: large and prime, so that no other number
is taken for one of them."""


def value_at(
    graph: Graph, name: str, sizes_of: Callable[[str], Sequence[int] | None]
) -> Array | None:
    """A constant, or what is computed from nothing but shapes; None for anything else.

    Args:
        sizes_of: tensor → the shape to take it to have.
    """
    value = graph.constant(name)
    if value is not None:
        return value
    nodes: dict[int, Node] = {}
    feeds: dict[str, Array] = {}
    pending = [name]
    while pending:
        read = pending.pop()
        value = graph.constant(read)
        if value is not None:
            feeds[read] = value
            continue
        producer = graph.producers.get(read)
        if producer is None:
            return None
        nodes[producer.index] = producer
        row = operator_of(producer)
        if row is None or row.scale is not ScaleRule.OBSERVE:
            pending += [i for i in producer.inputs if i]
            continue
        sizes = sizes_of(producer.input(0))
        if sizes is None:
            return None
        feeds[producer.input(0)] = np.broadcast_to(np.float32(0), sizes)
    results = run_nodes(graph, [nodes[index] for index in sorted(nodes)], feeds, [name])
    return None if results is None else results[0]


def run_nodes(
    graph: Graph, nodes: Sequence[Node], feeds: dict[str, Array], names: Sequence[str]
) -> list[Array] | None:
    """Run nodes in the reference evaluator; None where they refuse the inputs."""
    from onnx.reference import ReferenceEvaluator

    inputs = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in feeds.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in names]
    protos = [graph.model.message.graph.node[node.index] for node in nodes]
    body = onnx.helper.make_graph(protos, "move", inputs, outputs)
    opsets = [onnx.helper.make_opsetid("", graph.model.opset)]
    model = onnx.helper.make_model(body, opset_imports=opsets)
    try:
        results = ReferenceEvaluator(model).run(None, feeds)
    except Exception:  # noqa: BLE001 - a shape that does not fit raises anything
        return None
    return [np.asarray(result) for result in results]


# --- reshapes --------------------------------------------------------------------------------


def fix_reshapes(model: Model) -> Model:
    """Make the shape of each Reshape a constant, with 0 and −1 for what is known at run time only.

    Where that takes more than one −1 the Reshape stays, and its output is declared to have as many
    axes as it has.
    """
    model = infer_shapes(model)
    tried: set[str] = set()
    for _ in range(ROUNDS):
        graph = Graph(model)
        found = {
            node.name: targets
            for node in graph.nodes
            if node.name not in tried and (targets := _targets(graph, node)) is not None
        }
        if not found:
            break
        tried |= found.keys()
        model = infer_shapes(_resolve(graph, found))
    return model


def _targets(graph: Graph, node: Node) -> list[int | None] | None:
    """The shape that a Reshape asks for, None for numbers known at run time only.

    A number that is the input's on the same axis is 0, as for Reshape itself.
    """
    row = operator_of(node)
    if row is None or not row.reshapes or graph.constant(node.input(1)) is not None:
        return None
    trials = [_Trial(graph, primes) for primes in _PRIMES]
    before = [trial(node.input(0)) for trial in trials]
    after = [value_at(graph, node.input(1), trial) for trial in trials]
    if any(value is None for value in (*before, *after)):
        return None
    # A row for each axis, a column for each trial; Reshape may add axes.
    sizes = itertools.zip_longest(*(size or () for size in before))
    numbers = list(zip(*(value.tolist() for value in after if value is not None), strict=True))
    if node.attributes.get("allowzero", 0) and any(0 in asked for asked in numbers):
        return None
    return [
        int(asked[0]) if len(set(asked)) == 1 else 0 if asked == had else None
        for asked, had in zip(numbers, itertools.chain(sizes, itertools.repeat(None)), strict=False)
    ]


class _Trial:
    """Shapes with a size of its own for each axis of unknown size; None if there are too many."""

    def __init__(self, graph: Graph, primes: Sequence[int]) -> None:
        self._graph, self._primes = graph, primes
        self._symbols: dict[object, int] = {}

    def __call__(self, name: str) -> list[int] | None:
        shape = self._graph.shape(name)
        if shape is None:
            return None
        sizes = []
        for axis, size in enumerate(shape):
            if isinstance(size, int):
                sizes.append(size)
                continue
            symbol = self._symbols.setdefault(size or (name, axis), len(self._symbols))
            if symbol >= len(self._primes):
                return None
            sizes.append(self._primes[symbol])
        return sizes


def _resolve(graph: Graph, found: dict[str, list[int | None]]) -> Model:
    shapes = {
        name: [-1 if size is None else size for size in targets]
        for name, targets in found.items()
        if sum(size in {None, -1} for size in targets) <= 1
    }

    def change(gs_graph: Any) -> None:
        nodes = {node.name: node for node in gs_graph.nodes}
        for name, shape in shapes.items():
            nodes[name].inputs[1] = constant(f"{name}.shape", np.array(shape, np.int64))
            nodes[name].attrs.pop("allowzero", None)

    model = edit(graph.model, change) if shapes else graph.model
    proto = ModelProto()
    proto.CopyFrom(model.message)
    for name in found.keys() - shapes.keys():
        _declare(proto, graph, graph.by_name[name], found[name])
    return Model.adopt(proto, model.source)


def _declare(proto: ModelProto, graph: Graph, node: Node, targets: Sequence[int | None]) -> None:
    if graph.rank(node.output) is not None or node.output in graph.outputs:
        return
    sizes = [size if size and size > 0 else None for size in targets]
    kind = graph.elem_type(node.output) or graph.elem_type(node.input(0))
    others = [info for info in proto.graph.value_info if info.name != node.output]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(others)
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info(node.output, kind, sizes))
