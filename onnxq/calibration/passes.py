"""Split the tensors into groups that fit the memory, one pass over the data for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.session import Runtime, run, with_outputs

ALIVE = 2
"""Batches whose activations exist at a time: while one is counted the next one is computed."""


def groups_within(
    model: Model,
    tensors: Sequence[str],
    feeds: Mapping[str, NDArray[Any]],
    budget: int,
    runtime: Runtime,
) -> list[list[str]]:
    """The tensors in order, in as few groups as the budget allows.

    A tensor that alone exceeds it has a group of its own.

    Args:
        tensors: names of computed tensors.
        feeds: one batch, which is run once to learn the sizes.
        budget: bytes that the activations of a group may take; 0 for no limit.
    """
    if not budget or not tensors:
        return [list(tensors)]
    sizes = _sizes(model, tensors, feeds, runtime)
    groups: list[list[str]] = [[]]
    used = 0
    for name in tensors:
        if groups[-1] and used + ALIVE * sizes[name] > budget:
            groups.append([])
            used = 0
        groups[-1].append(name)
        used += ALIVE * sizes[name]
    return groups


def with_group(model: Model, group: Sequence[str], others: Sequence[str]) -> ModelProto:
    """The model with the tensors of one group as outputs, computed as if all tensors were.

    What is an output decides what ONNX Runtime fuses, and fused kernels round differently. So of
    each of the `others` one element is an output: that keeps it from being fused away.
    """
    graph = Graph(model)
    proto = with_outputs(model, group)
    for number, name in enumerate(others):
        rank = graph.rank(name)
        if rank == 0:
            continue
        axes = np.arange(rank or 1)
        bounds = {"starts": np.zeros_like(axes), "ends": np.ones_like(axes), "axes": axes}
        inputs = [f"onnxq.anchor.{number}.{key}" for key in bounds]
        proto.graph.initializer.extend(
            onnx.numpy_helper.from_array(value, key)
            for key, value in zip(inputs, bounds.values(), strict=True)
        )
        output = f"onnxq.anchor.{number}"
        proto.graph.node.append(onnx.helper.make_node("Slice", [name, *inputs], [output]))
        proto.graph.output.append(
            onnx.helper.make_tensor_value_info(output, graph.elem_type(name), None)
        )
    return proto


def _sizes(
    model: Model,
    tensors: Sequence[str],
    feeds: Mapping[str, NDArray[Any]],
    runtime: Runtime,
) -> dict[str, int]:
    """Bytes of each tensor for this batch, found without keeping any of them."""
    proto = with_outputs(model, ())
    names = [f"onnxq.shape.{number}" for number in range(len(tensors))]
    for name, tensor in zip(names, tensors, strict=True):
        proto.graph.node.append(onnx.helper.make_node("Shape", [tensor], [name]))
        info = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None)
        proto.graph.output.append(info)
    shapes = run(runtime.open(proto), names, feeds)
    return {tensor: 4 * int(np.prod(shape)) for tensor, shape in zip(tensors, shapes, strict=True)}
