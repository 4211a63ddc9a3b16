"""What can be computed before run time becomes a constant."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

from onnxq.errors import ModelError
from onnxq.model import elements, external
from onnxq.model.graph import Graph, Node, names_in_subgraphs
from onnxq.model.model import Model
from onnxq.model.operators import DEQUANTIZE, QUANTIZE, ScaleRule, operator_of
from onnxq.model.session import open_session, run
from onnxq.model.shapes import run_nodes

Array = NDArray[Any]

FOLD_LIMIT = 1 << 24
"""Elements of a computed constant above which it stays computed at run time, unless the constants
that it is computed from have as many."""

_NEVER_FOLDED = frozenset(
    {QUANTIZE, DEQUANTIZE, "RandomNormal", "RandomUniform", "Bernoulli",
     "RandomNormalLike", "RandomUniformLike", "Multinomial", "If", "Loop", "Scan"}
)  # fmt: skip


_COMPUTED = elements.NUMPY | {TensorProto.UNDEFINED}
"""Types, known or not, of values that ONNX Runtime may compute here."""

_RUNTIME_TYPES = frozenset(
    f"tensor({TensorProto.DataType.Name(each).lower()})" for each in elements.NUMPY
)
"""The known ones by ONNX Runtime's names. Others it hands over as uint8, or not at all."""


def fold_constants(model: Model) -> tuple[Model, int]:
    """Replace nodes whose values are known before run time by initializers. Returns how many."""
    model, small = _fold_small(model)
    model, large = _fold_large(model)
    if large:
        model, more = _fold_small(model)
        return model, small + large + more
    return model, small


def _fold_small(model: Model) -> tuple[Model, int]:
    graph = Graph(model)
    known: set[str] = set()
    foldable: list[Node] = []
    given: dict[str, Array] = {}
    for node in graph.nodes:
        static = _static_shape(graph, node)
        if static is None:
            static = _stored_value(node)
        if static is not None:
            given[node.output] = static
            known.add(node.output)
            foldable.append(node)
        elif _is_foldable(graph, node, known) and not _is_large(graph, node):
            known.update(node.results)
            foldable.append(node)
    if not foldable:
        return model, 0
    folded = {node.index for node in foldable}
    needed = [
        name
        for name in known
        if graph.is_exposed(name)
        or any(use.node.index not in folded for use in graph.consumers(name))
    ]
    values = _evaluate(model, [n for n in foldable if n.output not in given], given, needed)
    if values is None:
        return model, 0
    return _with_values(model, folded, values), len(foldable)


def _static_shape(graph: Graph, node: Node) -> Array | None:
    """The value of a Shape node whose input has known sizes only."""
    row = operator_of(node)
    if row is None or row.scale is not ScaleRule.OBSERVE or row.op_type != "Shape":
        return None
    shape = graph.shape(node.input(0))
    if shape is None or not all(isinstance(size, int) for size in shape):
        return None
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return np.array(shape[start:end], np.int64)


def _stored_value(node: Node) -> Array | None:
    """The value of a node that has no inputs but holds a tensor, a Constant.

    Taken as it is: ONNX Runtime hands over few of the types that a tensor may have.
    """
    tensor = node.attributes.get("value")
    if node.inputs or node.domain or not isinstance(tensor, TensorProto):
        return None
    return external.values_of(tensor) if math.prod(tensor.dims) <= FOLD_LIMIT else None


def _is_foldable(graph: Graph, node: Node, known: set[str]) -> bool:
    if node.op_type in _NEVER_FOLDED or node.domain:
        return False
    if any(isinstance(value, onnx.GraphProto) for value in node.attributes.values()):
        return False
    if not all(graph.is_tensor(name) for name in node.results):
        return False
    if not all(graph.elem_type(name) in _COMPUTED for name in node.results):
        return False
    return all(not name or name in known or graph.is_constant(name) for name in node.inputs)


def _elements(graph: Graph, name: str) -> int:
    """Elements of a tensor as far as they are known, so that no terabyte is computed to be told."""
    return math.prod(size for size in graph.shape(name) or () if isinstance(size, int))


def _evaluate(
    model: Model, nodes: list[Node], given: dict[str, Array], needed: list[str]
) -> dict[str, Array] | None:
    """Run the constant part of the graph; None where ONNX Runtime cannot."""
    names = sorted(name for name in needed if name not in given)
    values = {name: given[name] for name in needed if name in given}
    if not names:
        return values
    protos = [model.message.graph.node[node.index] for node in nodes]
    read = {name for proto in protos for name in proto.input}
    part = ModelProto()
    part.CopyFrom(model.message)
    for field in ("node", "input", "output", "value_info", "initializer"):
        part.graph.ClearField(field)
    part.graph.node.extend(protos)
    part.graph.initializer.extend(t for t in model.message.graph.initializer if t.name in read)
    part.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in given.items() if name in read
    )
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    try:
        session = open_session(part, optimize=False)
        if any(output.type not in _RUNTIME_TYPES for output in session.get_outputs()):
            return None
        results = run(session, names, {})
    except ModelError as error:
        logging.getLogger(__name__).debug("constants stay computed at run time: %s", error)
        return None
    if any(not isinstance(r, np.ndarray) or r.size > FOLD_LIMIT for r in results):
        return None
    return values | dict(zip(names, results, strict=True))


def _with_values(model: Model, folded: set[int], values: dict[str, Array]) -> Model:
    tensors = {name: numpy_helper.from_array(value, name) for name, value in values.items()}
    return _with_tensors(model, folded, tensors)


def _with_tensors(model: Model, folded: set[int], tensors: dict[str, TensorProto]) -> Model:
    """The model with constants in place of the nodes of these indices."""
    proto = ModelProto()
    proto.CopyFrom(model.message)
    kept = [node for index, node in enumerate(proto.graph.node) if index not in folded]
    outputs = {output.name for output in proto.graph.output}
    del proto.graph.node[:]
    for name in sorted(tensors):
        # A graph output must be the output of a node.
        if name in outputs:
            value = numpy_helper.from_array(external.values_of(tensors[name]))
            kept.append(
                onnx.helper.make_node("Constant", [], [name], f"Constant_{name}", value=value)
            )
        else:
            proto.graph.initializer.append(tensors[name])
    proto.graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    used |= {name for node in kept for name in names_in_subgraphs(node)} | outputs
    inputs = {i.name for i in proto.graph.input}
    initializers = [t for t in proto.graph.initializer if t.name in used or t.name in inputs]
    infos = [i for i in proto.graph.value_info if i.name in used]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(initializers)
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(infos)
    return Model.adopt(proto, model.source)


# --- large ones ------------------------------------------------------------------------------


def _fold_large(model: Model) -> tuple[Model, int]:
    """Fold results above the limit that are no larger than what they are made of.

    One at a time, so that no more than one is in memory beside the model: an exporter's
    MatMul(x, Transpose(W)) has the whole weight of a language model's last layer there.
    """
    count = 0
    while (found := next(_large(Graph(model)), None)) is not None:
        node, values = found
        model = _with_tensors(model, {node.index}, _tensors(model, values))
        count += 1
    return model, count


def _large(graph: Graph) -> Iterator[tuple[Node, dict[str, Array]]]:
    for node in graph.nodes:
        if not _is_large(graph, node) or not _is_foldable(graph, node, set()):
            continue
        made_of = {name: graph.value(name) for name in node.inputs if name}
        there = sum(value.size for value in made_of.values()) + _elements_in_attributes(node)
        if sum(_elements(graph, name) for name in node.results) > there:
            continue
        names = node.results
        results = run_nodes(graph, [node], made_of, names)
        if results is not None and sum(result.size for result in results) <= there:
            yield node, dict(zip(names, results, strict=True))


def _elements_in_attributes(node: Node) -> int:
    tensors = (value for value in node.attributes.values() if isinstance(value, TensorProto))
    return sum(math.prod(tensor.dims) for tensor in tensors)


def _tensors(model: Model, values: dict[str, Array]) -> dict[str, TensorProto]:
    """As initializers; those of a large model are parked before they are copied anywhere."""
    parked = external.is_large(model.message)
    return {
        name: external.tensor_of(name, np.ascontiguousarray(value), parked=parked)
        for name, value in values.items()
    }


def _is_large(graph: Graph, node: Node) -> bool:
    return any(_elements(graph, name) > FOLD_LIMIT for name in node.results)
