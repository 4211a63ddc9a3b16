"""Operators that ONNX Runtime fuses, taken apart again into those that ONNX defines.

A model that ONNX Runtime's optimizer has saved, or that was written for it, holds a convolution and
its activation as one FusedConv of com.microsoft: no other runtime knows it, and no stage of onnxq.
How to take one apart is a row of the table; whether that is right for a node is measured.

The operators: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from onnxq.model.graph import Node
from onnxq.refusal import Refusal

DOMAIN = "com.microsoft"


@dataclass
class Parts:
    """The nodes that take the place of one, in the making. Their results have names of their own.

    Attributes:
        node: the fused node.
        opset: of the default operators.
        ranks: number of axes of its first two inputs.
    """

    node: Node
    opset: int
    ranks: tuple[int | None, int | None]
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def add(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """A node, and the name of what it computes. The first has the name of the fused one."""
        given = list(inputs)
        while given and not given[-1]:
            given.pop()
        name = f"{self.node.name}.{op_type}{len(self.nodes)}" if self.nodes else self.node.name
        output = f"{self.node.output}.{op_type}{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(op_type, given, [output], name, **attributes))
        return output

    def number(self, value: float) -> str:
        name = f"{self.node.output}.number{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, np.float32), name))
        return name

    def axes(self, *axes: int) -> str:
        name = f"{self.node.output}.axes{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(axes, np.int64), name))
        return name

    def attribute(self, name: str, default: float) -> float:
        return float(self.node.attributes.get(name, default))


Rule = Callable[[Parts, Node], "dict[int, str] | Refusal"]
"""Writes the parts; output number of the fused node → the part's result that it is."""


# --- activations -----------------------------------------------------------------------------


def _gelu(parts: Parts, x: str) -> str:
    """x·Φ(x)."""
    scaled = parts.add("Div", x, parts.number(math.sqrt(2)))
    shifted = parts.add("Add", parts.add("Erf", scaled), parts.number(1))
    return parts.add("Mul", parts.add("Mul", x, shifted), parts.number(0.5))


def _fast_gelu(parts: Parts, x: str) -> str:
    """Its approximation with tanh."""
    cube = parts.add("Mul", parts.add("Mul", x, x), x)
    inner = parts.add("Add", x, parts.add("Mul", cube, parts.number(0.044715)))
    bent = parts.add("Tanh", parts.add("Mul", inner, parts.number(math.sqrt(2 / math.pi))))
    return parts.add("Mul", parts.add("Mul", x, parts.add("Add", bent, parts.number(1))),
                     parts.number(0.5))  # fmt: skip


def _activated(parts: Parts, x: str, kind: str, values: list[float]) -> str | Refusal:
    """The activation that FusedConv and FusedGemm name in an attribute."""
    if not kind:
        return x
    if kind in {"Relu", "Tanh", "Sigmoid"}:
        return parts.add(kind, x)
    if kind == "LeakyRelu" and values:
        return parts.add(kind, x, alpha=values[0])
    if kind == "HardSigmoid" and len(values) == 2:
        return parts.add(kind, x, alpha=values[0], beta=values[1])
    if kind == "Clip" and len(values) == 2:
        return parts.add(kind, x, parts.number(values[0]), parts.number(values[1]))
    return Refusal(f"its activation {kind} is not known")


def _text(node: Node, name: str) -> str:
    value = node.attributes.get(name, b"")
    return value.decode() if isinstance(value, bytes) else str(value)


# --- rules -----------------------------------------------------------------------------------


def _fused_conv(parts: Parts, node: Node) -> dict[int, str] | Refusal:
    own = {"activation", "activation_params"}
    kept = {name: value for name, value in node.attributes.items() if name not in own}
    result = parts.add("Conv", *(node.input(i) for i in range(3)), **kept)
    if node.input(3):
        result = parts.add("Add", result, node.input(3))
    values = list(node.attributes.get("activation_params", ()))
    found = _activated(parts, result, _text(node, "activation"), values)
    return found if isinstance(found, Refusal) else {0: found}


def _fused_gemm(parts: Parts, node: Node) -> dict[int, str] | Refusal:
    kept = {n: v for n, v in node.attributes.items() if not n.startswith("activation")}
    result = parts.add("Gemm", *(node.input(i) for i in range(3)), **kept)
    numbers = ("activation_alpha", "activation_beta", "activation_gamma")
    values = [float(node.attributes[name]) for name in numbers if name in node.attributes]
    found = _activated(parts, result, _text(node, "activation"), values)
    return found if isinstance(found, Refusal) else {0: found}


def _fused_matmul(parts: Parts, node: Node) -> dict[int, str] | Refusal:
    if any(node.attributes.get(name, 0) for name in ("transBatchA", "transBatchB")):
        return Refusal("it moves the batch axis")
    operands = [node.input(0), node.input(1)]
    for position, name in enumerate(("transA", "transB")):
        if node.attributes.get(name, 0):
            rank = parts.ranks[position]
            if rank is None or rank < 2:
                return Refusal("the number of its axes is unknown")
            order = [*range(rank - 2), rank - 1, rank - 2]
            operands[position] = parts.add("Transpose", operands[position], perm=order)
    result = parts.add("MatMul", *operands)
    alpha = parts.attribute("alpha", 1.0)
    return {0: result if alpha == 1 else parts.add("Mul", result, parts.number(alpha))}


def _bias_gelu(parts: Parts, node: Node) -> dict[int, str]:
    return {0: _gelu(parts, parts.add("Add", node.input(0), node.input(1)))}


def _plain_gelu(parts: Parts, node: Node) -> dict[int, str]:
    return {0: _gelu(parts, node.input(0))}


def _plain_fast_gelu(parts: Parts, node: Node) -> dict[int, str]:
    biased = bool(node.input(1))
    return {0: _fast_gelu(parts, parts.add("Add", *node.inputs[:2]) if biased else node.input(0))}


def _quick_gelu(parts: Parts, node: Node) -> dict[int, str]:
    alpha = parts.number(parts.attribute("alpha", 1.702))
    gate = parts.add("Sigmoid", parts.add("Mul", node.input(0), alpha))
    return {0: parts.add("Mul", node.input(0), gate)}


def _skip_layer_norm(parts: Parts, node: Node) -> dict[int, str]:
    """Inputs: x, skip, gamma, beta, bias; its fourth output is the sum that it normalizes."""
    total = parts.add("Add", node.input(0), node.input(1))
    if node.input(4):
        total = parts.add("Add", total, node.input(4))
    epsilon = parts.attribute("epsilon", 1e-12)
    return {0: _layer_norm(parts, total, node.input(2), node.input(3), epsilon), 3: total}


def _layer_norm(parts: Parts, x: str, gamma: str, beta: str, epsilon: float) -> str:
    if parts.opset >= _LAYER_NORM:
        return parts.add("LayerNormalization", x, gamma, beta, axis=-1, epsilon=epsilon)
    centered = parts.add("Sub", x, _mean(parts, x))
    result = parts.add("Mul", _over_rms(parts, centered, epsilon), gamma)
    return parts.add("Add", result, beta) if beta else result


def _skip_rms_norm(parts: Parts, node: Node) -> dict[int, str]:
    """Inputs: x, skip, gamma, bias."""
    total = parts.add("Add", node.input(0), node.input(1))
    if node.input(3):
        total = parts.add("Add", total, node.input(3))
    epsilon = parts.attribute("epsilon", 1e-12)
    if parts.opset >= _RMS_NORM:
        result = parts.add("RMSNormalization", total, node.input(2), axis=-1, epsilon=epsilon)
    else:
        result = parts.add("Mul", _over_rms(parts, total, epsilon), node.input(2))
    return {0: result, 3: total}


def _over_rms(parts: Parts, x: str, epsilon: float) -> str:
    square = _mean(parts, parts.add("Pow", x, parts.number(2)))
    return parts.add("Div", x, parts.add("Sqrt", parts.add("Add", square, parts.number(epsilon))))


def _mean(parts: Parts, x: str) -> str:
    if parts.opset >= _AXES_AS_INPUT:
        return parts.add("ReduceMean", x, parts.axes(-1), keepdims=1)
    return parts.add("ReduceMean", x, axes=[-1], keepdims=1)


_LAYER_NORM, _AXES_AS_INPUT, _RMS_NORM = 17, 18, 23
"""First operator sets with LayerNormalization, with the axes of ReduceMean as an input, with
RMSNormalization."""

FUSED: dict[str, Rule] = {
    "FusedConv": _fused_conv,
    "FusedGemm": _fused_gemm,
    "FusedMatMul": _fused_matmul,
    "BiasGelu": _bias_gelu,
    "Gelu": _plain_gelu,
    "FastGelu": _plain_fast_gelu,
    "QuickGelu": _quick_gelu,
    "SkipLayerNormalization": _skip_layer_norm,
    "SkipSimplifiedLayerNormalization": _skip_rms_norm,
}
"""THE table: operator of `DOMAIN` → how it is taken apart."""
