"""What fits the memory: the tensors of each pass over the data, the batches that run at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from onnxq.data.ahead import MOST
from onnxq.data.gather import run_batch
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.session import Runtime, run, with_outputs

ALIVE = 2
"""Batches whose activations exist at a time where memory is short."""

IN_FLIGHT = 1 << 30
"""Bytes that the activations of all batches that run at a time may take, if they are more."""


def batches_at_a_time(
    model: Model,
    tensors: Sequence[str],
    batch_size: int,
    feeds: Callable[[], Mapping[str, NDArray[Any]]],
    runtime: Runtime,
    memory: int,
) -> int:
    """How many batches to run side by side, each on its share of the threads.

    Threads that run batches of their own wait for nobody, and each counts what it has just
    computed. ONNX Runtime's results do not depend on the number of threads.

    Args:
        tensors: names of the computed tensors to hand out.
        feeds: gives one batch; it is run to learn the sizes where shapes do not tell them.
        memory: the budget that the groups were made for; 0 for none.
    """
    threads = min(MOST, runtime.cores)
    if memory or threads <= ALIVE:
        return min(threads, ALIVE)
    sizes = _known_sizes(Graph(model), tensors, batch_size)
    if sizes is None:
        sizes = _sizes(model, tensors, feeds(), runtime)
    return max(ALIVE, min(threads, IN_FLIGHT // max(1, sum(sizes.values()))))


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


def _known_sizes(graph: Graph, tensors: Sequence[str], batch_size: int) -> dict[str, int] | None:
    """Bytes of each tensor for one batch by its shape; None where one is not known."""
    sizes = {}
    for name in tensors:
        samples, *rest = graph.shape(name) or (None, None)
        known = [side for side in rest if isinstance(side, int)]
        if len(known) < len(rest):
            return None
        sizes[name] = 4 * math.prod(
            known, start=samples if isinstance(samples, int) else batch_size
        )
    return sizes


def _sizes(
    model: Model,
    tensors: Sequence[str],
    feeds: Mapping[str, NDArray[Any]],
    runtime: Runtime,
) -> dict[str, int]:
    """Bytes of each tensor for this batch, found without keeping any of them.

    Where the model takes single samples only, for one of those.
    """
    proto = with_outputs(model, ())
    names = [f"onnxq.shape.{number}" for number in range(len(tensors))]
    for name, tensor in zip(names, tensors, strict=True):
        proto.graph.node.append(onnx.helper.make_node("Shape", [tensor], [name]))
        info = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None)
        proto.graph.output.append(info)
    session = runtime.open(proto)
    _, shapes = next(run_batch(lambda batch: run(session, names, batch), feeds))
    return {tensor: 4 * int(np.prod(shape)) for tensor, shape in zip(tensors, shapes, strict=True)}
