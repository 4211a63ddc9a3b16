"""What the numbers stand for that a model takes and gives in place of floats."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxq.formats.parameters import Parameters
from onnxq.formats.table import FORMATS
from onnxq.model.files import infer_shapes
from onnxq.model.model import Model, with_metadata
from onnxq.model.operators import DEQUANTIZE, QUANTIZE

METADATA_KEY = "onnxq.interface"


def interface_json(tensors: Mapping[str, Parameters]) -> str:
    """What the metadata hold."""
    return json.dumps({
        name: {"format": each.format.name, "scale": float(each.scale),
               "zero_point": int(each.zero_point)}
        for name, each in tensors.items()
    })  # fmt: skip


def recorded_interface(model: Model) -> Mapping[str, Parameters]:
    """Input or output → what its numbers stand for, as the metadata say; none without them."""
    said = json.loads(model.metadata.get(METADATA_KEY, "{}"))
    return {
        name: Parameters(
            FORMATS[each["format"]],
            np.array(each["scale"], np.float32),
            np.array(each["zero_point"], np.int32),
        )
        for name, each in said.items()
    }


def with_float_interface(model: Model) -> Model:
    """The model with floats in place of the integers: what it would be without `--io`."""
    interface = recorded_interface(model)
    if not interface:
        return model
    proto = ModelProto()
    proto.CopyFrom(model.message)
    graph = proto.graph
    inner = {name: f"{name}_quantized" for name in interface}
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [inner.get(name, name) for name in names]
    inputs = {info.name for info in graph.input}
    for info in (*graph.input, *graph.output):
        if info.name not in interface:
            continue
        info.type.tensor_type.elem_type = TensorProto.FLOAT
        name, each = info.name, interface[info.name]
        ends = [name, inner[name]]
        made, op_type = (ends, QUANTIZE) if name in inputs else (ends[::-1], DEQUANTIZE)
        constants = {f"{name}_scale": each.scale, f"{name}_zero_point": each.stored_zero_point}
        known = {tensor.name for tensor in graph.initializer}
        graph.initializer.extend(
            numpy_helper.from_array(np.asarray(value), label)
            for label, value in constants.items()
            if label not in known
        )
        read, written = made
        end = helper.make_node(
            op_type, [read, *constants], [written], name=f"{name}/{op_type.lower()}"
        )
        graph.node.insert(0 if name in inputs else len(graph.node), end)
    del graph.value_info[:]
    changed = infer_shapes(Model.adopt(proto, model.source))
    return with_metadata(changed, {METADATA_KEY: "{}"})
