"""Sparse weights written out: every later stage reads dense ones.

ONNX Runtime does the same as it loads a model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    SparseTensorProto,
    TensorProto,
    numpy_helper,
)

from onnxq.errors import ModelError
from onnxq.model.graph import graphs_in, nodes_in
from onnxq.model.model import Model


def write_out_sparse(model: Model) -> tuple[Model, int]:
    """The model with dense tensors in place of sparse ones. Returns how many.

    Raises `ModelError` where one's places lie outside of it.
    """
    count = sum(len(g.sparse_initializer) for g in graphs_in(model.message.graph))
    count += sum(1 for _ in _sparse_attributes(model.message.graph))
    if not count:
        return model, 0
    proto = ModelProto()
    proto.CopyFrom(model.message)
    for graph in graphs_in(proto.graph):
        graph.initializer.extend(_dense(each, model.name) for each in graph.sparse_initializer)
        del graph.sparse_initializer[:]
    for attribute in list(_sparse_attributes(proto.graph)):
        dense = _dense(attribute.sparse_tensor, model.name)
        attribute.Clear()
        attribute.name, attribute.type = "value", AttributeProto.TENSOR
        attribute.t.CopyFrom(dense)
    return Model.adopt(proto, model.source), count


def _sparse_attributes(graph: GraphProto) -> Iterator[AttributeProto]:
    """The sparse values of Constant nodes."""
    for node in nodes_in(graph.node):
        yield from (a for a in node.attribute if a.type == AttributeProto.SPARSE_TENSOR)


def _dense(sparse: SparseTensorProto, model: str) -> TensorProto:
    """The same tensor with its zeros."""
    name, shape = sparse.values.name, tuple(sparse.dims)
    if TensorProto.EXTERNAL in {sparse.values.data_location, sparse.indices.data_location}:
        raise ModelError(f"{model}: its sparse weights lie in other files", hint="make them dense")
    values, places = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    flat = _flat(places.astype(np.int64), shape)
    if len(flat) != values.size or (
        values.size and not 0 <= int(flat.min()) <= int(flat.max()) < math.prod(shape)
    ):
        raise ModelError(f"{model}: sparse tensor {name!r} has places outside of its shape")
    # Zeros of the type that the values have, bfloat16 too.
    dense = np.zeros(math.prod(shape), values.dtype)
    dense[flat] = values.reshape(-1)
    return numpy_helper.from_array(dense.reshape(shape), name)


def _flat(places: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Places in a flattened tensor: they are given so, or as an index along each axis."""
    if places.ndim < 2:
        return places
    strides = np.array([math.prod(shape[axis + 1 :]) for axis in range(len(shape))], np.int64)
    return np.asarray(places @ strides)
