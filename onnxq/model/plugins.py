"""Plugins of TensorRT at the end of a model, such as a detector's EfficientNMS_TRT.

ONNX Runtime does not know them, so it can run, calibrate and compare no model that has one. What
comes before them can be: a model is loaded without its plugins and all that depends on them, ends
in the tensors that they read, and gets them back when it is saved. In between they travel in the
metadata, which every rewrite keeps.
"""

from __future__ import annotations

import base64

import onnx
from onnx import GraphProto, ModelProto, NodeProto

from onnxq.errors import ModelError
from onnxq.model.graph import names_in_subgraphs
from onnxq.model.session import libraries_in_use, open_session
from onnxq.model.structure import has_schema

KEY = "onnxq.plugins"
"""Metadata entry that holds what was cut off, as long as the model is in memory."""

DOMAINS = frozenset({"TRT", "trt.plugins", "TensorRT"})
"""Domains that plugins are written under, besides the default one."""


def cut_plugins(proto: ModelProto) -> ModelProto:
    """The model without its plugins and what depends on them; itself where ONNX Runtime runs it.

    Raises:
        ModelError: nothing comes before them.
    """
    plugins = [node.op_type for node in proto.graph.node if _is_plugin(proto, node)]
    if not plugins or libraries_in_use() or _runs(proto):
        return proto
    head, tail = _divided(proto)
    if not head or not tail.input:
        raise ModelError(f"ONNX Runtime does not know {plugins[0]}, and no layer comes before it")
    result = ModelProto()
    result.CopyFrom(proto)
    graph = result.graph
    for field in ("node", "output", "value_info"):
        graph.ClearField(field)
    graph.node.extend(head)
    made = {name for node in head for name in node.output}
    kept = [o for o in proto.graph.output if o.name in made]
    known = _known(result)
    read = [
        known.get(name) or onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in (each.name for each in tail.input)
        if name in made and name not in {output.name for output in kept}
    ]
    graph.output.extend([*kept, *read])
    text = base64.b64encode(tail.SerializeToString(deterministic=True)).decode()
    result.metadata_props.add(key=KEY, value=text)
    return result


def put_back(proto: ModelProto) -> ModelProto:
    """The model with what `cut_plugins` cut off; itself where that was nothing."""
    tail = cut_off(proto)
    if tail is None:
        return proto
    result = ModelProto()
    result.CopyFrom(proto)
    kept = [entry for entry in result.metadata_props if entry.key != KEY]
    del result.metadata_props[:]
    result.metadata_props.extend(kept)
    result.graph.node.extend(tail.node)
    result.graph.initializer.extend(tail.initializer)
    declared = {output.name: output for output in result.graph.output}
    del result.graph.output[:]
    result.graph.output.extend(declared.get(o.name) or o for o in tail.output)
    wanted = {output.name for output in tail.output}
    result.graph.value_info.extend(o for name, o in declared.items() if name not in wanted)
    domains = {entry.domain for entry in result.opset_import}
    result.opset_import.extend(
        onnx.helper.make_opsetid(domain, 1)
        for domain in sorted({node.domain for node in tail.node} - domains - {""})
    )
    return result


def cut_off(proto: ModelProto) -> GraphProto | None:
    """What was cut off; None where that was nothing."""
    text = next((entry.value for entry in proto.metadata_props if entry.key == KEY), None)
    return None if text is None else GraphProto.FromString(base64.b64decode(text))


def names_of_plugins(proto: ModelProto) -> list[str]:
    """The operators that were cut off because ONNX Runtime does not know them."""
    tail = cut_off(proto)
    nodes = () if tail is None else tail.node
    return sorted({node.op_type for node in nodes if _is_plugin(proto, node)})


def _is_plugin(proto: ModelProto, node: NodeProto) -> bool:
    return node.domain in DOMAINS or not has_schema(proto, node)


def _runs(proto: ModelProto) -> bool:
    try:
        open_session(proto)
    except ModelError:
        return False
    return True


def _divided(proto: ModelProto) -> tuple[list[NodeProto], GraphProto]:
    """The nodes that depend on no plugin, and the rest with what it reads and gives.

    The rest has its own copies of constants: those of the first part may become others.
    """
    tail = GraphProto(name="plugins")
    head: list[NodeProto] = []
    lost: set[str] = set()
    for node in proto.graph.node:
        reads = set(node.input) | names_in_subgraphs(node)
        if _is_plugin(proto, node) or reads & lost:
            tail.node.append(node)
            lost.update(name for name in node.output if name)
        else:
            head.append(node)
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    read = [name for node in tail.node for name in node.input if name and name not in lost]
    for name in dict.fromkeys(read):
        if name in stored:
            tail.initializer.add().CopyFrom(stored[name])
            tail.initializer[-1].name = f"{name}.plugin"
        else:
            tail.input.add(name=name)
    for node in tail.node:
        for index, name in enumerate(node.input):
            if name in stored:
                node.input[index] = f"{name}.plugin"
    tail.output.extend(proto.graph.output)
    return head, tail


def _known(proto: ModelProto) -> dict[str, onnx.ValueInfoProto]:
    try:
        shaped = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return {}
    return {info.name: info for info in shaped.graph.value_info}
