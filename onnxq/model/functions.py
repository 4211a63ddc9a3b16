"""What all that reads a tensor makes of its values, where that is a function, value by value.

Behind a convolution a SiLU is a Sigmoid and a Mul that both read its output: together they are one
function of it, x·sigmoid(x). An error in a value matters as far as the function's result changes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.model.elementwise import LARGEST
from onnxq.model.graph import Graph, Node
from onnxq.model.operators import operator_of
from onnxq.model.shapes import run_nodes

Array = NDArray[Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Function:
    """Nodes that together are a function of one tensor, value by value.

    Attributes:
        graph: where they stand.
        root: the tensor.
        end: what they make of it; nothing else reads the tensor, or what lies between the two.
        nodes: in topological order.
    """

    graph: Graph
    root: str
    end: str
    nodes: tuple[Node, ...]

    @property
    def between(self) -> frozenset[str]:
        """The tensors between root and end."""
        return frozenset(node.output for node in self.nodes) - {self.end}

    def at(self, values: Floats, wanted: str = "") -> Floats | None:
        """The values of a tensor of the function, of `end` by default; None where it cannot run.

        Args:
            values: of the root, (points,).
        """
        return self._run(self.nodes, {self.root: values}, wanted or self.end)

    def behind(self, name: str, values: Floats, changed: Floats) -> Floats | None:
        """The values of `end` where one tensor between was changed.

        Args:
            values: of the root, (points,).
            changed: of the tensor, (points,).
        """
        moved, later = {name}, []
        for node in self.nodes:
            if not moved.isdisjoint(node.inputs):
                moved.add(node.output)
                later.append(node)
        feeds = {self.root: values, name: changed}
        for beside in {each for node in later for each in node.inputs} & self.between - moved:
            found = self.at(values, beside)
            if found is None:
                return None
            feeds[beside] = found
        return self._run(later, feeds, self.end)

    def _run(
        self, nodes: Sequence[Node], feeds: Mapping[str, Floats], wanted: str
    ) -> Floats | None:
        arrays: dict[str, Array] = {name: v.astype(np.float32) for name, v in feeds.items()}
        for name in {name for node in nodes for name in node.inputs if name}:
            if (constant := self.graph.constant(name)) is not None:
                arrays[name] = constant
        size = feeds[self.root].size
        # The ends of the range of float32 are no points of interest.
        with np.errstate(all="ignore"):
            found = run_nodes(self.graph, nodes, arrays, [wanted])
        if found is None or found[0].size != size:
            return None
        return np.asarray(found[0].ravel(), np.float64)


def function_of(graph: Graph, root: str) -> Function | None:
    """What all that reads `root` makes of it together; None where that is no such function.

    Of several that follow each other the whole, up to `LARGEST` nodes.
    """
    made, nodes = {root}, dict[int, Node]()
    found: Function | None = None
    while len(nodes) < LARGEST and (node := _next(graph, made, nodes)) is not None:
        nodes[node.index] = node
        made.add(node.output)
        if {name for name in made if _is_read_by_others(graph, name, nodes)} == {node.output}:
            ordered = tuple(nodes[index] for index in sorted(nodes))
            found = Function(graph, root, node.output, ordered)
    return found


def within_function(graph: Graph, name: str) -> Function | None:
    """The function of another tensor between whose root and end a tensor lies; None where none."""
    root = name
    for _ in range(LARGEST):
        maker = graph.producers.get(root)
        if maker is None or (variable := _variable(graph, maker)) is None:
            return None
        root = variable
        function = function_of(graph, root)
        if function is not None and name in function.between:
            return function
    return None


def _next(graph: Graph, made: set[str], nodes: Collection[int]) -> Node | None:
    """The next node that looks at values of these tensors, and at nothing else."""
    candidates = {
        use.node.index: use.node
        for name in made
        for use in graph.consumers(name)
        if use.node.index not in nodes
        and (variables := _variables(graph, use.node)) is not None
        and variables <= made
    }  # fmt: skip
    return candidates[min(candidates)] if candidates else None


def _variables(graph: Graph, node: Node) -> set[str] | None:
    """What the node reads that is no constant number; None where it is not elementwise.

    A constant for each channel makes another function of each.
    """
    row = operator_of(node)
    if row is None or not row.elementwise or len(node.results) != 1:
        return None
    constants = {name: graph.constant(name) for name in node.inputs if name}
    if any(value is not None and value.size != 1 for value in constants.values()):
        return None
    return {name for name, value in constants.items() if value is None}


def _variable(graph: Graph, node: Node) -> str | None:
    """The one tensor that an elementwise node reads; None where there are several."""
    variables = _variables(graph, node)
    return variables.pop() if variables is not None and len(variables) == 1 else None


def _is_read_by_others(graph: Graph, name: str, nodes: Collection[int]) -> bool:
    uses = graph.consumers(name)
    return graph.is_exposed(name) or not uses or any(use.node.index not in nodes for use in uses)
