"""What the tensors of a model take: learned from one sample, or from the shapes where they tell."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from numpy.typing import NDArray

from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.session import Runtime, open_session, run, with_outputs
from onnxq.model.subgraph import names_read

Array = NDArray[Any]
Feeds = Mapping[str, Array]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Footprint:
    """What the tensors of a model take while one sample runs.

    Attributes:
        sizes: tensor → bytes of one sample.
    """

    sizes: Mapping[str, int]

    def peak(self, graph: Graph, kept: Collection[str]) -> int:
        """Most bytes of one sample that exist at a time, where the `kept` tensors stay."""
        last = {name: node.index for node in graph.nodes for name in names_read(graph, node)}
        kept = {*kept, *graph.outputs}
        alive = most = sum(self.sizes.get(name, 0) for name in graph.inputs)
        for node in graph.nodes:
            alive += sum(self.sizes.get(name, 0) for name in node.outputs)
            most = max(most, alive)
            for name in {*names_read(graph, node), *node.outputs} - kept:
                if last.get(name, node.index) == node.index:
                    alive -= self.sizes.get(name, 0)
        return most


def known_footprint(graph: Graph) -> Footprint | None:
    """By shapes whose only unknown side is the number of samples; None where any other is.

    Integers, which shape computations are made of, take next to nothing and are left out.
    """
    if any(not graph.elem_type(name) for node in graph.nodes for name in node.results):
        return None
    sizes: dict[str, int] = {}
    samples = {spec.shape[0] for spec in graph.model.inputs if spec.shape}
    for name in graph.activations:
        shape = graph.shape(name)
        if shape is None or not all(isinstance(side, int) for side in shape[1:]):
            return None
        if shape and not isinstance(shape[0], int) and shape[0] not in samples:
            return None
        sizes[name] = _bytes(graph, name, tuple(int(side) for side in shape[1:] if side))
    return Footprint(sizes)


def measure_footprint(model: Model, one: Feeds, runtime: Runtime) -> Footprint:
    """By running one sample. Raises `ModelError` where it does not run."""
    graph = Graph(model)
    (shapes,) = measure_shapes(model, tensors_in(graph), [one], runtime)
    return Footprint({name: _bytes(graph, name, shape) for name, shape in shapes.items()})


def measure_axes(
    model: Model, single: Feeds, double: Feeds, runtime: Runtime
) -> dict[str, int | None]:
    """Tensor → the axis along which it grows with the samples; None where it does not grow.

    What grows in another way is left out.

    Args:
        single: one sample.
        double: the same beside itself.

    Raises:
        ModelError: it does not run, or not beside itself.
    """
    one, two = measure_shapes(model, tensors_in(Graph(model)), [single, double], runtime)
    axes: dict[str, int | None] = {}
    for name, shape in one.items():
        pairs = enumerate(zip(shape, two[name], strict=False))
        growing = [axis for axis, (before, after) in pairs if before != after]
        if len(growing) <= 1 and len(shape) == len(two[name]):
            axes[name] = growing[0] if growing else None
    return axes


def tensors_in(graph: Graph) -> list[str]:
    """What nodes compute and is known to be tensors."""
    made = [name for node in graph.nodes for name in node.results]
    return [name for name in made if graph.is_tensor(name) and graph.elem_type(name)]


def measure_shapes(
    model: Model, names: Sequence[str], several: Sequence[Feeds], runtime: Runtime
) -> list[dict[str, Shape]]:
    """The shapes of the inputs and of the tensors named, for each of the feeds.

    Nothing else is kept. Raises `ModelError` where the model does not run.
    """
    proto = with_outputs(model, ())
    outputs = [f"onnxq.shape.{number}" for number in range(len(names))]
    for name, output in zip(names, outputs, strict=True):
        proto.graph.node.append(onnx.helper.make_node("Shape", [name], [output]))
        info = onnx.helper.make_tensor_value_info(output, onnx.TensorProto.INT64, None)
        proto.graph.output.append(info)
    # Optimized, shapes that ONNX Runtime believes to know would be folded, and all tensors kept.
    session = (
        open_session(
            proto, optimize=False, threads=runtime.threads, libraries=runtime.libraries,
            lean=True, shapes_first=True,
        )
        if outputs
        else None
    )  # fmt: skip
    found = []
    for given in several:
        shapes = {name: values.shape for name, values in given.items()}
        if session is not None:
            sides = run(session, outputs, given)
            shapes |= {n: tuple(map(int, shape)) for n, shape in zip(names, sides, strict=True)}
        found.append(shapes)
    return found


def _bytes(graph: Graph, name: str, shape: Shape) -> int:
    try:
        kind = onnx.helper.tensor_dtype_to_np_dtype(graph.elem_type(name))
    except KeyError:
        return math.prod(shape) * 4
    return math.prod(shape) * kind.itemsize
