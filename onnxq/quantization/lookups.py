"""Nodes that look up rows of numbers and make float values of what they took."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from onnxq.model.rewrite import constant, node, variable

BLOCKS_OP, BLOCKS_DOMAIN = "GatherBlockQuantized", "com.microsoft"
"""ONNX Runtime's lookup of numbers in blocks; ONNX's own takes none narrower than a byte."""


class Chain:
    """Nodes put behind another one, the last of which gives its output."""

    def __init__(self, gs_graph: Any, first: Any) -> None:
        self._graph, self.name, self._last = gs_graph, first.name, first
        (self._output,) = first.outputs

    def add(self, op_type: str, *others: Any, **attributes: Any) -> None:
        name = f"{self.name}/{len(self._graph.nodes)}"
        between = variable(f"{name}_in")
        self._last.outputs = [between]
        self._last = node(op_type, name, [between, *others], [], **attributes)
        self._graph.nodes.append(self._last)

    def end(self) -> None:
        self._last.outputs = [self._output]


def look_up_blocks(lookup: Any, inputs: list[Any], block: int) -> None:
    """Make a lookup one of 4-bit numbers in blocks.

    Its attribute `bits`, 4 by default, is unknown to ONNX Runtime before 1.23.

    Args:
        inputs: the numbers, the indices, scales and zero points.
        block: columns that share a scale.
    """
    lookup.op, lookup.domain, lookup.inputs = BLOCKS_OP, BLOCKS_DOMAIN, inputs
    lookup.attrs = {"gather_axis": 0, "quantize_axis": 1, "block_size": block}


def scale_blocks(chain: Chain, scales: Any, lead: list[int], blocks: int, block: int) -> None:
    """Multiply the integers that a lookup took by the scales of their blocks of columns.

    Args:
        scales: (…, blocks, 1).
        lead: a 0 for each axis of the indices: a Reshape keeps its size.
    """
    name = chain.name
    chain.add("Cast", to=TensorProto.FLOAT)
    chain.add("Reshape", constant(f"{name}/split", np.array([*lead, blocks, block], np.int64)))
    chain.add("Mul", scales)
    chain.add("Reshape", constant(f"{name}/whole", np.array([*lead, blocks * block], np.int64)))
