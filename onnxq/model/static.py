"""Sizes of a model's inputs that are known in advance, as compilers for NPUs want them."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import GraphProto, ModelProto, ValueInfoProto

from onnxq.model.files import infer_shapes
from onnxq.model.model import Model, TensorSpec, shape_of


def open_inputs(model: Model) -> tuple[TensorSpec, ...]:
    """The inputs of which a size is left open."""
    return tuple(
        spec for spec in model.inputs
        if spec.shape is None or not all(isinstance(size, int) for size in spec.shape)
    )  # fmt: skip


def with_shapes(model: Model, shapes: Mapping[str, tuple[int, ...]]) -> Model:
    """The model with these shapes of inputs, and what follows of other tensors' inferred anew.

    A size with a name is the same wherever the name stands.

    Args:
        shapes: input → its shape, which fits what the model says.
    """
    if not shapes:
        return model
    named = {
        size: shapes[spec.name][axis]
        for spec in model.inputs
        if spec.name in shapes
        for axis, size in enumerate(spec.shape or ())
        if isinstance(size, str)
    }
    proto = ModelProto()
    proto.CopyFrom(model.message)
    for info in proto.graph.input:
        _fix(info, shapes.get(info.name), named)
    _forget(proto.graph, named)
    return infer_shapes(Model.adopt(proto, model.source))


def _fix(info: ValueInfoProto, given: tuple[int, ...] | None, named: Mapping[str, int]) -> None:
    known = shape_of(info)
    sizes = info.type.tensor_type.shape
    if given is None and known is not None:
        for size, value in zip(sizes.dim, known, strict=True):
            if isinstance(value, str) and value in named:
                size.dim_value = named[value]
    elif given is not None:
        del sizes.dim[:]
        for value in given:
            sizes.dim.add(dim_value=value)


def _forget(graph: GraphProto, named: Mapping[str, int]) -> None:
    """Leave to inference what was said of tensors behind the inputs."""
    del graph.value_info[:]
    for info in graph.output:
        _fix(info, None, named)
        for size in info.type.tensor_type.shape.dim:
            if not size.HasField("dim_value") or size.dim_value < 0:
                size.Clear()
