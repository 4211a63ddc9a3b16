"""Every rewrite of a graph goes through `edit`; only this module imports onnx-graphsurgeon.

Graphsurgeon is good at producer and consumer edits but loses what it does not model: metadata,
documentation, inputs with default values, quantization annotations (docs/decisions/0001). So its
result gives nodes and initializers only, put into a copy of the source.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs  # noqa: TID251
from onnx import AttributeProto, GraphProto, ModelProto, TypeProto
from onnx_graphsurgeon.ir.tensor import LazyValues  # noqa: TID251
from onnx_graphsurgeon.logger import G_LOGGER  # noqa: TID251

from onnxq.errors import ModelError
from onnxq.model import external
from onnxq.model.containers import container
from onnxq.model.graph import names_in_subgraphs
from onnxq.model.model import Model
from onnxq.model.structure import check_validity

_SKIPPED = frozenset(
    {AttributeProto.TENSORS, AttributeProto.SPARSE_TENSOR, AttributeProto.SPARSE_TENSORS}
)
"""Kinds of attributes that graphsurgeon writes as they are, but does not read."""

_REFUSED = {
    AttributeProto.TYPE_PROTO: "a type",
    AttributeProto.TYPE_PROTOS: "types",
    AttributeProto.GRAPHS: "a list of graphs",
}
"""Kinds that it does not read either, and would have to."""

Change = Callable[["gs.Graph"], None]


def edit(model: Model, change: Change, *, opset: int = 0) -> Model:
    """A copy of the model with `change` made to its graph; the source stays as it is.

    Args:
        model: left untouched.
        change: edits the graphsurgeon graph in place. It replaces `Constant.values` by new
            arrays and never writes into the old ones, which the source shares.
        opset: raise the default operator set to this version, if lower.

    Raises:
        ModelError: the edited graph is no valid model.
    """
    # Graphsurgeon's logger prints to stdout, which belongs to the command line.
    with G_LOGGER.suppress():
        graph = _import(model)
        old, old_nodes = list(graph.tensors().values()), list(graph.nodes)
        change(graph)
        # First the names: graphsurgeon takes tensors of one name for the same when it sorts.
        captured = {name for node in model.message.graph.node for name in names_in_subgraphs(node)}
        _rename_new(graph, old, captured)
        graph.cleanup(remove_unused_node_outputs=False).toposort()
        # Then those of nodes: one may be in the place of another, which only now is gone.
        _rename_nodes(graph, old_nodes)
        result = _export(graph, parked=external.is_large(model.message))

    proto = ModelProto()
    proto.CopyFrom(model.message)
    notes = {node.name: node for node in model.message.graph.node if node.name}
    overridable = {i.name for i in proto.graph.input}
    defaults = [t for t in proto.graph.initializer if t.name in overridable]
    for field in ("node", "initializer", "value_info"):
        proto.graph.ClearField(field)
    proto.graph.node.extend(result.graph.node)
    proto.graph.initializer.extend(defaults)
    proto.graph.initializer.extend(t for t in result.graph.initializer if t.name not in overridable)
    produced = {name for node in result.graph.node for name in node.output}
    proto.graph.value_info.extend(i for i in model.message.graph.value_info if i.name in produced)
    for node in proto.graph.node:
        if node.name in notes:
            node.metadata_props.extend(notes[node.name].metadata_props)
            node.doc_string = notes[node.name].doc_string
    _merge_opsets(proto, result, opset)
    try:
        check_validity(proto, model.message)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ModelError(f"the rewritten graph is not valid: {error}") from error
    return Model.adopt(proto, model.source)


def _import(model: Model) -> gs.Graph:
    """The graph in graphsurgeon's form; raises `ModelError` for what that form cannot hold."""
    source = ModelProto()
    source.CopyFrom(model.message)
    _hide_types(source.graph)
    try:
        graph = gs.import_onnx(source)
    except Exception as error:  # it fails with whatever its own code raises
        raise ModelError(f"the graph has a form onnxq cannot rewrite: {error}") from error
    _complete(graph, source.graph)
    for tensor in graph.tensors().values():
        lazy = tensor._values if isinstance(tensor, gs.Constant) else None  # noqa: SLF001
        if isinstance(lazy, LazyValues) and external.is_parked(lazy.tensor):
            tensor.values = _Parked(lazy.tensor)
    return graph


class _Parked(LazyValues):  # type: ignore[misc]
    """Values in a file of this program, which graphsurgeon does not find."""

    def load(self) -> Any:
        return np.array(external.values_of(self.tensor))


def _hide_types(graph: GraphProto) -> None:
    """Take away the types that graphsurgeon reads and cannot write: `edit` has them of its source,
    but for those of bodies.
    """
    for info in (*graph.value_info, *graph.input, *graph.output):
        if not _is_written(info.type):
            info.ClearField("type")
    for owner, attribute in ((node, each) for node in graph.node for each in node.attribute):
        if attribute.type != AttributeProto.GRAPH:
            continue
        for info in (*attribute.g.input, *attribute.g.output):
            if not _is_written(info.type):
                raise ModelError(
                    f"{info.name!r} in the body of {owner.name!r} ({owner.op_type}) is "
                    f"{container(info.type)}, which onnxq cannot rewrite there"
                )
        _hide_types(attribute.g)


def _is_written(kind: TypeProto) -> bool:
    inner = kind.sequence_type.elem_type if kind.HasField("sequence_type") else kind
    return inner.WhichOneof("value") in {None, "tensor_type", "sparse_tensor_type"}


def _complete(graph: gs.Graph, source: GraphProto) -> None:
    """Give the nodes what graphsurgeon skips when it imports, here and in bodies of If and Loop."""
    for node, proto in zip(graph.nodes, source.node, strict=True):
        for attribute in proto.attribute:
            if attribute.type in _REFUSED:
                raise ModelError(
                    f"node {proto.name!r} ({proto.op_type}) has {_REFUSED[attribute.type]} as "
                    f"attribute {attribute.name!r}, which onnxq cannot rewrite"
                )
            if attribute.type in _SKIPPED:
                node.attrs[attribute.name] = onnx.helper.get_attribute_value(attribute)
            elif attribute.type == AttributeProto.GRAPH:
                _complete(node.attrs[attribute.name], attribute.g)


def _export(graph: gs.Graph, *, parked: bool) -> ModelProto:
    """The graph as ONNX has it; with `parked`, large new weights go to files first."""
    try:
        for tensor in graph.tensors().values():
            _make_ready(tensor, parked=parked)
        for inner in graph.subgraphs(recursive=True):
            for tensor in inner.tensors().values():
                _make_ready(tensor, parked=False)
        for each in (graph, *graph.subgraphs(recursive=True)):
            for value in (value for node in each.nodes for value in node.attrs.values()):
                _make_ready(value, parked=False)
        result: ModelProto = gs.export_onnx(graph, do_type_check=False)
    except Exception as error:
        raise ModelError(f"the graph has a form onnxq cannot rewrite: {error}") from error
    return result


def _make_ready(tensor: Any, *, parked: bool) -> None:
    """Turn the new values of a constant into a tensor that graphsurgeon writes as it is.

    Its own would hold what numpy does, but ONNX stores texts, some of float8 and values narrower
    than a byte in another way.
    """
    if isinstance(tensor, gs.Constant) and isinstance(tensor._values, np.ndarray):  # noqa: SLF001
        proto = external.tensor_of(tensor.name, tensor._values, parked=parked)  # noqa: SLF001
        tensor._values = LazyValues(proto)  # noqa: SLF001


def _rename_new(graph: gs.Graph, old: Sequence[gs.Tensor], captured: set[str]) -> None:
    """Give each tensor that is not among the `old` ones a name that no other tensor has."""
    known = set(map(id, old))
    tensors = {
        id(tensor): tensor
        for node in graph.nodes
        for tensor in (*node.inputs, *node.outputs)
        if tensor.name
    }
    taken = captured | {tensor.name for tensor in (*graph.inputs, *graph.outputs)}
    taken |= {tensor.name for key, tensor in tensors.items() if key in known}
    for tensor in (tensor for key, tensor in tensors.items() if key not in known):
        tensor.name = _free(tensor.name, taken)
        taken.add(tensor.name)


def _rename_nodes(graph: gs.Graph, old: Sequence[gs.Node]) -> None:
    """The same for nodes, which need not have any name."""
    known = set(map(id, old))
    taken = {node.name for node in graph.nodes if id(node) in known}
    for node in (each for each in graph.nodes if id(each) not in known and each.name):
        node.name = _free(node.name, taken)
        taken.add(node.name)


def _free(wanted: str, taken: Collection[str]) -> str:
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    return name


def _merge_opsets(proto: ModelProto, result: ModelProto, opset: int) -> None:
    known = {entry.domain for entry in proto.opset_import}
    used = {node.domain for node in result.graph.node}
    proto.opset_import.extend(
        entry for entry in result.opset_import if entry.domain not in known and entry.domain in used
    )
    imported = {"ai.onnx", "", *(entry.domain for entry in proto.opset_import)}
    proto.opset_import.extend(
        onnx.helper.make_opsetid(domain, 1) for domain in sorted(used - imported)
    )
    for entry in proto.opset_import:
        if entry.domain in {"", "ai.onnx"}:
            entry.version = max(entry.version, opset)
    proto.ir_version = max(proto.ir_version, lowest_ir_version(proto))


def lowest_ir_version(proto: ModelProto) -> int:
    """The lowest IR version that the model's operator sets need."""
    return int(onnx.helper.find_min_ir_version_for(proto.opset_import, ignore_unknown=True))


def constant(name: str, values: Any) -> gs.Constant:
    """A new initializer for use inside a `change`."""
    # numpy turns the product of two 0-d arrays into a scalar, which graphsurgeon refuses.
    return gs.Constant(name, np.asarray(values))


def variable(name: str, dtype: Any = None, shape: Any = None) -> gs.Variable:
    """A new tensor for use inside a `change`."""
    return gs.Variable(name, dtype=dtype, shape=shape)


def node(
    op_type: str, name: str, inputs: list[Any], outputs: list[Any], **attributes: Any
) -> gs.Node:
    """A new node for use inside a `change`."""
    return gs.Node(op=op_type, name=name, attrs=attributes, inputs=inputs, outputs=outputs)
