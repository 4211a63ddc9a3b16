"""Types and shapes that ONNX's inference does not know, learned from ONNX Runtime.

Inference stops at an operator of another domain, and knows nothing of what follows: a layer behind
it would have an input of no type. ONNX Runtime knows its own operators and those of a custom
library; the axes of what it does not know before it runs, a run counts.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, ValueInfoProto

from onnxq.errors import ModelError
from onnxq.model.files import infer_shapes
from onnxq.model.graph import Graph
from onnxq.model.model import Dimension, Model
from onnxq.model.session import open_session, with_outputs
from onnxq.model.trials import Values, run_trials


def learn_types(model: Model) -> tuple[Model, int]:
    """The model with types and axes of all tensors that ONNX Runtime tells, and how many it told.

    A model that ONNX Runtime does not run keeps what it has.
    """
    unknown = _unknown(Graph(model))
    if not unknown:
        return model, 0
    told = infer_shapes(_with(model, _declared(model, unknown)))
    rest = _unknown(Graph(told))
    if rest:
        told = infer_shapes(_with(told, _observed(run_trials(told, rest))))
    return told, len(unknown) - len(_unknown(Graph(told)))


def correct_outputs(model: Model) -> Model:
    """The model without the shapes of outputs that it declares wrongly, or with the right ones.

    Paddle's converter declares outputs of three axes as scalars, or without a shape; ONNX Runtime
    computes them all the same.
    """
    doubtful = [
        output.name
        for output in model.message.graph.output
        if output.type.HasField("tensor_type") and not output.type.tensor_type.shape.dim
    ]
    if not doubtful or not set(doubtful) & set(Graph(model).producers):
        return model
    proto = ModelProto()
    proto.CopyFrom(model.message)
    for output in proto.graph.output:
        if output.name in doubtful:
            output.type.tensor_type.ClearField("shape")
    return infer_shapes(Model.adopt(proto, model.source))


def _unknown(graph: Graph) -> list[str]:
    """Tensors of unknown type or rank."""
    return [
        name
        for node in graph.nodes
        for name in node.results
        if graph.is_tensor(name)
        and (not graph.elem_type(name) or graph.rank(name) is None)
    ]  # fmt: skip


def _declared(model: Model, names: list[str]) -> list[ValueInfoProto]:
    """What a session says of these tensors before it runs."""
    try:
        session = open_session(with_outputs(model, names), optimize=False)
    except ModelError:
        return []
    types = _element_types()
    found = []
    for tensor in session.get_outputs():
        # It says [] of a scalar, and of a tensor with any number of axes.
        if tensor.type in types and tensor.shape:
            sizes: list[Dimension] = [s if isinstance(s, int) else None for s in tensor.shape]
            found.append(onnx.helper.make_tensor_value_info(tensor.name, types[tensor.type], sizes))
    return found


def _element_types() -> dict[str, int]:
    """ONNX Runtime's name of a tensor type → ONNX's number; those that layers compute with."""
    kinds = onnx.TensorProto
    return {
        "tensor(float)": kinds.FLOAT, "tensor(float16)": kinds.FLOAT16,
        "tensor(double)": kinds.DOUBLE, "tensor(bfloat16)": kinds.BFLOAT16,
        "tensor(int64)": kinds.INT64, "tensor(int32)": kinds.INT32, "tensor(bool)": kinds.BOOL,
        "tensor(int8)": kinds.INT8, "tensor(uint8)": kinds.UINT8, "tensor(string)": kinds.STRING,
    }  # fmt: skip


def _observed(runs: list[Values]) -> list[ValueInfoProto]:
    """Type and axes of what was computed; sizes where all runs agree."""
    found = []
    for name, value in (runs[0] if runs else {}).items():
        shapes = [run[name].shape for run in runs]
        if len({len(shape) for shape in shapes}) > 1:
            continue
        known = len(shapes) > 1
        sizes = [s[0] if known and len(set(s)) == 1 else None for s in zip(*shapes, strict=True)]
        kind = (
            onnx.TensorProto.STRING
            if value.dtype.kind in "OU"
            else onnx.helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype))
        )
        found.append(onnx.helper.make_tensor_value_info(name, kind, sizes))
    return found


def _with(model: Model, infos: list[ValueInfoProto]) -> Model:
    """The model with these declared; outputs of the graph keep their names for sizes."""
    if not infos:
        return model
    proto = ModelProto()
    proto.CopyFrom(model.message)
    told = {info.name: info for info in infos}
    kept = [info for info in proto.graph.value_info if info.name not in told]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    for output in proto.graph.output:
        if output.name in told:
            output.type.CopyFrom(told.pop(output.name).type)
    proto.graph.value_info.extend(told.values())
    return Model.adopt(proto, model.source)
