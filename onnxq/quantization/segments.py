"""Run a graph piece by piece, so that what one layer computes can be changed before the next runs.

Each node runs once: the cost of visiting every layer is about that of one inference. What later
pieces read waits on a shelf, in memory or in temporary files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from onnxq.data.batching import samples_in
from onnxq.data.budget import Batching
from onnxq.data.shelf import Shelf, Values
from onnxq.model.graph import Graph, Node
from onnxq.model.model import Model
from onnxq.model.operators import depends_on_batch, is_dequantize, is_quantize
from onnxq.model.session import run
from onnxq.model.subgraph import names_read, subgraph_model

Array = NDArray[Any]


class SegmentRunner:
    """Holds the live tensors of one model over some groups of samples.

    What is no tensor, such as a sequence, is not held: its node runs again with those that read it.

    Args:
        model: the model; its main graph is in topological order.
        batches: values of its inputs, group by group.
        batching: how it runs. A piece whose bits depend on the batch runs in whole groups.
        shelf: where tensors wait; runners may share one.
    """

    def __init__(
        self,
        model: Model,
        batches: Sequence[Mapping[str, Array]],
        batching: Batching,
        shelf: Shelf,
    ) -> None:
        self._batching, self._shelf = batching, shelf
        self._samples = [samples_in(batch) for batch in batches]
        self._graph = Graph(model)
        self._axes = _axes(self._graph, batching.axes)
        self._live: dict[str, Values] = {
            name: Values.of([batch[name] for batch in batches])
            for name in (batches[0] if batches else {})
        }
        self._pending: dict[int, Node] = {node.index: node for node in self._graph.nodes}
        # What each node reads, in the bodies of its If, Loop or Scan too; and who reads a tensor.
        self._reads: list[set[str]] = [names_read(self._graph, node) for node in self._graph.nodes]
        self._readers: dict[str, set[int]] = {}
        for index, names in enumerate(self._reads):
            for name in names:
                self._readers.setdefault(name, set()).add(index)

    def compute(self, tensor: str) -> Values:
        """Run what `tensor` still needs and return its value in each group."""
        if tensor not in self._live:
            self._run(self._needed(tensor), tensor)
        value = self._live[tensor]
        self._forget()
        return value

    def add(self, tensor: str, step: Array) -> None:
        """Let everything that runs later see values that are higher by `step`.

        They change where they are: whoever has them sees that too.
        """
        if tensor in self._live:
            self._live[tensor].change(lambda values: np.add(values, step, out=values))

    def set_constant(self, name: str, value: Array) -> None:
        """Give an initializer another value for everything that runs later."""
        self._live[name] = Values.of([value] * len(self._samples))
        self._axes[name] = None

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
        later = self._pending.keys() - (inside - self._again(nodes))
        produced = [name for node in nodes for name in node.results]
        # Tensors that will be read later stay alive.
        wanted = [
            name
            for name in produced
            if (name == tensor or not later.isdisjoint(self._readers.get(name, ())))
            and self._graph.is_tensor(name)
            and name not in self._live
        ]
        read = set().union(*(self._reads[index] for index in inside))
        fed = sorted(read.intersection(self._live).difference(produced))
        split = self._batching.splits and self._is_separable(nodes, [*fed, *wanted])
        inputs = {
            name: _described(self._live[name], self._axes.get(name, 0) if split else None)
            for name in fed
        }
        part = subgraph_model(self._graph, nodes, inputs, wanted)
        self._live |= self._results(part, fed, wanted, split=split)
        self._pending = {index: self._pending[index] for index in sorted(later)}

    def _again(self, nodes: Sequence[Node]) -> set[int]:
        """Those of the nodes of a piece that give what is no tensor to nodes that run later."""
        later = self._pending.keys() - {node.index for node in nodes}
        found: set[int] = set()
        for node in reversed(nodes):
            others = (name for name in node.results if not self._graph.is_tensor(name))
            if any(not (later | found).isdisjoint(self._readers.get(n, ())) for n in others):
                found.add(node.index)
        return found

    def _is_separable(self, nodes: Sequence[Node], names: Sequence[str]) -> bool:
        """Whether samples give the same bits by themselves, and can be told apart."""
        if any(depends_on_batch(self._graph, node) for node in nodes):
            return False
        known = all(name in self._axes for name in names)
        return known and not any(
            shape[axis] % samples
            for name in names
            if name in self._live and (axis := self._axes[name]) is not None
            for shape, samples in zip(self._live[name].shapes, self._samples, strict=True)
        )

    def _results(
        self, part: ModelProto, fed: Sequence[str], wanted: Sequence[str], *, split: bool
    ) -> dict[str, Values]:
        """Run a piece over all groups, in parts or whole."""
        size = self._batching.size if split else max(self._samples, default=1)
        spans = [
            (group, first, min(first + size, samples))
            for group, samples in enumerate(self._samples)
            for first in range(0, samples, size)
        ]
        batching = self._batching if split else self._batching.whole()
        session = batching.runtime(len(spans)).open(part, optimize=False)
        workers = batching.workers(len(spans))

        def work(feeds: Mapping[str, Array]) -> list[Array]:
            return run(session, wanted, feeds)

        feeds = ({name: self._cut(name, *span) for name in fed} for span in spans)
        found = {name: self._shelf.values() for name in wanted}
        for span, arrays in zip(spans, batching.map(work, feeds, workers), strict=True):
            group, first, stop = span
            for name, array in zip(wanted, arrays, strict=True):
                if first:
                    found[name].extend(array)
                else:
                    share = (stop - first) / self._samples[group]
                    found[name].append(array, axis=self._axes.get(name, 0), share=share)
        return found

    def _cut(self, name: str, group: int, first: int, stop: int) -> Array:
        """What a tensor holds of some samples of a group."""
        values, samples, axis = self._live[name], self._samples[group], self._axes.get(name)
        if axis is None or stop - first == samples:
            return np.asarray(values[group])
        rows = values.shapes[group][axis] // samples
        chosen = slice(first * rows, stop * rows)
        if axis == 0:
            return values.rows(group, chosen)
        return np.ascontiguousarray(values[group][(slice(None),) * axis + (chosen,)])

    def _forget(self) -> None:
        """Drop values that no pending node reads."""
        for name in list(self._live):
            if not any(index in self._pending for index in self._readers.get(name, ())):
                del self._live[name]


def _described(values: Values, axis: int | None) -> tuple[int, list[int | None]]:
    """ONNX element type of a tensor, and the sizes that it has in every run.

    Args:
        axis: along which it is cut into parts; None where it is not.
    """
    sizes = enumerate(zip(*values.shapes, strict=True))
    number: int = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
    return number, [
        size[0] if len(set(size)) == 1 and place != axis else None for place, size in sizes
    ]


def _axes(graph: Graph, known: Mapping[str, int | None]) -> dict[str, int | None]:
    """Those known of the float model, for its quantized values too."""
    axes = dict(known)
    for node in graph.nodes:
        if (is_quantize(node) or is_dequantize(node)) and node.input(0) in axes:
            axes[node.output] = axes[node.input(0)]
    return axes
