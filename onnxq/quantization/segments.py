"""Run a graph piece by piece, so that what one layer computes can be changed before the next runs.

Each node runs once: the cost of visiting every layer is about that of one inference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxq.data.gather import run_batches
from onnxq.model.graph import Graph, Node
from onnxq.model.model import Model
from onnxq.model.subgraph import names_read, subgraph_model

Array = NDArray[Any]


class SegmentRunner:
    """Holds the live tensors of one model over some batches of samples.

    Args:
        model: the model; its main graph is in topological order.
        batches: values of its inputs, batch by batch.
    """

    def __init__(self, model: Model, batches: Sequence[Mapping[str, Array]]) -> None:
        self._graph, self._count = Graph(model), len(batches)
        self._live: dict[str, list[Array]] = {
            name: [batch[name] for batch in batches] for name in (batches[0] if batches else {})
        }
        self._pending: dict[int, Node] = {node.index: node for node in self._graph.nodes}
        # What each node reads, in the bodies of its If, Loop or Scan too; and who reads a tensor.
        self._reads: list[set[str]] = [names_read(self._graph, node) for node in self._graph.nodes]
        self._readers: dict[str, set[int]] = {}
        for index, names in enumerate(self._reads):
            for name in names:
                self._readers.setdefault(name, set()).add(index)

    def compute(self, tensor: str) -> list[Array]:
        """Run what `tensor` still needs and return its value in each batch."""
        if tensor not in self._live:
            self._run(self._needed(tensor), tensor)
        value = self._live[tensor]
        self._forget()
        return value

    def add(self, tensor: str, step: Array) -> None:
        """Let everything that runs later see values that are higher by `step`.

        They change where they are: whoever has them sees that too.
        """
        for values in self._live.get(tensor, []):
            np.add(values, step, out=values)

    def set_constant(self, name: str, value: Array) -> None:
        """Give an initializer another value for everything that runs later."""
        self._live[name] = [value] * self._count

    def _needed(self, tensor: str) -> list[Node]:
        """Pending nodes that the tensor depends on, in topological order."""
        found: dict[int, Node] = {}
        stack = [tensor]
        while stack:
            name = stack.pop()
            producer = self._graph.producers.get(name)
            if name in self._live or producer is None or producer.index in found:
                continue
            found[producer.index] = producer
            stack.extend(self._reads[producer.index])
        return [found[index] for index in sorted(found)]

    def _run(self, nodes: list[Node], tensor: str) -> None:
        inside = {node.index for node in nodes}
        produced = [name for node in nodes for name in node.outputs if name]
        # Outputs that nodes outside the piece will read stay alive.
        wanted = [
            name
            for name in produced
            if name == tensor
            or any(i not in inside and i in self._pending for i in self._readers.get(name, ()))
        ]
        read = set().union(*(self._reads[index] for index in inside))
        fed = [name for name in sorted(read) if name in self._live]
        inputs = {name: _described(self._live[name]) for name in fed}
        part = subgraph_model(self._graph, nodes, inputs, wanted)
        batches = [{name: self._live[name][i] for name in fed} for i in range(self._count)]
        results = run_batches(part, wanted, batches, optimize=False)
        for index, name in enumerate(wanted):
            self._live[name] = [result[index] for result in results]
        for index in inside:
            self._pending.pop(index, None)

    def _forget(self) -> None:
        """Drop values that no pending node reads."""
        for name in list(self._live):
            if not any(index in self._pending for index in self._readers.get(name, ())):
                del self._live[name]


def _described(values: list[Array]) -> tuple[int, list[int | None]]:
    """ONNX element type of a tensor, and the sizes that it has in every batch."""
    sizes = zip(*(value.shape for value in values), strict=True)
    number: int = onnx.helper.np_dtype_to_tensor_dtype(values[0].dtype)
    return number, [size[0] if len(set(size)) == 1 else None for size in sizes]
