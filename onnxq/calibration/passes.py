"""What fits the memory: the tensors of each pass over the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import ModelProto

from onnxq.model.footprint import Footprint
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.session import with_outputs


def groups_within(
    graph: Graph, tensors: Sequence[str], footprint: Footprint, budget: int, samples: int
) -> list[list[str]]:
    """The tensors in order, in as few groups as the budget allows.

    A tensor that alone exceeds it has a group of its own.

    Args:
        tensors: names of computed tensors.
        budget: bytes that the activations of one run may take.
        samples: of one run.
    """
    groups: list[list[str]] = [[]]
    used = running = footprint.peak(graph, ())
    for name in tensors:
        size = footprint.sizes.get(name, 0)
        if groups[-1] and samples * (used + size) > budget:
            groups.append([])
            used = running
        groups[-1].append(name)
        used += size
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
        kind = graph.elem_type(name)
        proto.graph.output.append(
            onnx.helper.make_tensor_value_info(output, kind, None)
            if kind
            else onnx.ValueInfoProto(name=output)
        )
    return proto
