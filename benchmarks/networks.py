"""Networks of the shapes people deploy, of any size, with random weights of a usual spread.

A ResNet of bottlenecks, a vision transformer, a detector in the manner of YOLOv8, a U-Net. Their
input is named x, [samples, 3, side, side].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from types import MappingProxyType

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Drawing:
    """Nodes and weights so far; tensors are their names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(0)

    def constant(self, values: np.ndarray) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def random(self, *shape: int, fan: float) -> str:
        """A weight that keeps the variance, its output channels of different sizes."""
        values = self.rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / fan))
        spread = np.exp2(self.rng.uniform(-1, 1, (shape[0],) + (1,) * (len(shape) - 1)))
        return self.constant(values * spread.astype(np.float32))

    def op(self, op_type: str, *inputs: str, **attributes: object) -> str:
        name = f"{op_type.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def conv(
        self, x: str, channels: int, out: int, kernel: int = 1, stride: int = 1, gain: float = 1
    ) -> str:
        fan = channels * kernel * kernel / gain**2
        weight = self.random(out, channels, kernel, kernel, fan=fan)
        bias = self.constant(self.rng.standard_normal(out, np.float32) / 10)
        sizes = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4, "strides": [stride] * 2}
        return self.op("Conv", x, weight, bias, **sizes)

    def dense(self, x: str, features: int, out: int) -> str:
        weight = self.random(features, out, fan=2 * features)
        bias = self.constant(self.rng.standard_normal(out, np.float32) / 10)
        return self.op("Add", self.op("MatMul", x, weight), bias)

    def norm(self, x: str, features: int) -> str:
        gain = self.constant(1 + self.rng.standard_normal(features).astype(np.float32) / 10)
        bias = self.constant(np.zeros(features, np.float32))
        return self.op("LayerNormalization", x, gain, bias, axis=-1)

    def model(self, output: str, side: int) -> onnx.ModelProto:
        sizes = ["n", 3, side, side]
        ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)]
        result = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, "drawn", ends, result, self.weights)
        opset = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=8)
        return onnx.shape_inference.infer_shapes(model)


def resnet(side: int, width: int = 64, depth: int = 1) -> onnx.ModelProto:
    """ResNet-50 at width 64 and depth 1: 25.6 million weights."""
    d = Drawing()
    x = d.op("Relu", d.conv("x", 3, width, 7, 2))
    x = d.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = width
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner = width << stage
        for block in range(blocks * depth):
            stride = 2 if stage and not block else 1
            y = d.op("Relu", d.conv(x, channels, inner))
            y = d.op("Relu", d.conv(y, inner, inner, 3, stride))
            y = d.conv(y, inner, 4 * inner, gain=0.25)
            x = x if block else d.conv(x, channels, 4 * inner, 1, stride)
            x, channels = d.op("Relu", d.op("Add", x, y)), 4 * inner
    x = d.op("Flatten", d.op("GlobalAveragePool", x))
    return d.model(d.dense(x, channels, 1000), side)


def transformer(side: int, width: int = 768, depth: int = 12) -> onnx.ModelProto:
    """ViT-B/16 at width 768 and depth 12: 86 million weights."""
    d, heads = Drawing(), width // 64
    x = d.conv("x", 3, width, 16, 16)
    d.nodes[-1].attribute.remove(next(a for a in d.nodes[-1].attribute if a.name == "pads"))
    x = d.op("Transpose", d.op("Reshape", x, d.ints(0, width, -1)), perm=[0, 2, 1])
    for _ in range(depth):
        y = d.norm(x, width)

        def split(read: str, perm: list[int]) -> str:
            parts = d.op("Reshape", d.dense(read, width, width), d.ints(0, 0, heads, 64))
            return d.op("Transpose", parts, perm=perm)

        query, key = split(y, [0, 2, 1, 3]), split(y, [0, 2, 3, 1])
        scores = d.op("Mul", d.op("MatMul", query, key), d.constant(np.float32(0.125)))
        mixed = d.op("MatMul", d.op("Softmax", scores, axis=-1), split(y, [0, 2, 1, 3]))
        mixed = d.op("Reshape", d.op("Transpose", mixed, perm=[0, 2, 1, 3]), d.ints(0, 0, width))
        x = d.op("Add", x, d.dense(mixed, width, width))
        y = d.dense(d.norm(x, width), width, 4 * width)
        half, root, one = (d.constant(np.float32(v)) for v in (0.5, np.sqrt(2), 1))
        bent = d.op("Add", d.op("Erf", d.op("Div", y, root)), one)
        y = d.op("Mul", d.op("Mul", y, half), bent)
        x = d.op("Add", x, d.dense(y, 4 * width, width))
    x = d.op("ReduceMean", d.norm(x, width), axes=[1], keepdims=0)
    return d.model(d.dense(x, width, 1000), side)


def detector(side: int, width: int = 64, depth: int = 2) -> onnx.ModelProto:
    """In the manner of YOLOv8m at width 64 and depth 2: 27 million weights."""
    d = Drawing()

    def block(x: str, channels: int, out: int, kernel: int = 1, stride: int = 1) -> str:
        y = d.conv(x, channels, out, kernel, stride)
        return d.op("Mul", y, d.op("Sigmoid", y))

    def split(x: str, channels: int, out: int) -> str:
        half = out // 2
        parts = [block(x, channels, half), block(x, channels, half)]
        for _ in range(depth):
            y = block(block(parts[-1], half, half, 3), half, half, 3)
            parts.append(d.op("Add", parts[-1], y))
        return block(d.op("Concat", *parts, axis=1), half * (2 + depth), out)

    sizes = [width, 2 * width, 4 * width, 8 * width, 12 * width]
    x, maps = block("x", 3, sizes[0], 3, 2), []
    for before, after in pairwise(sizes):
        x = split(block(x, before, after, 3, 2), after, after)
        maps.append(x)
    x, ends = maps[-1], []
    scales = d.constant(np.array([1, 1, 2, 2], np.float32))
    for level, channels in ((2, sizes[3]), (1, sizes[2])):
        before = sizes[4] if level == 2 else sizes[3]
        up = d.op("Resize", x, "", scales, mode="nearest")
        joined = d.op("Concat", up, maps[level], axis=1)
        x = split(joined, before + channels, channels)
        ends.append((x, channels))
    rows = []
    for end, channels in ((maps[-1], sizes[4]), *ends):
        boxes = d.conv(block(end, channels, channels // 4, 3), channels // 4, 64)
        scores = d.conv(block(end, channels, channels // 2, 3), channels // 2, 80)
        both = d.op("Concat", boxes, d.op("Sigmoid", scores), axis=1)
        rows.append(d.op("Reshape", both, d.ints(0, 144, -1)))
    return d.model(d.op("Concat", *rows, axis=2), side)


def unet(side: int, width: int = 64, depth: int = 4) -> onnx.ModelProto:
    """U-Net at width 64 and depth 4: 31 million weights; its first maps are as large as images."""
    d = Drawing()

    def double(x: str, channels: int, out: int) -> str:
        x = d.op("Relu", d.conv(x, channels, out, 3))
        return d.op("Relu", d.conv(x, out, out, 3))

    x, channels, kept = "x", 3, []
    for level in range(depth):
        x = double(x, channels, width << level)
        channels = width << level
        kept.append((x, channels))
        x = d.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x, channels = double(x, channels, 2 * channels), 2 * channels
    for skip, fewer in reversed(kept):
        weight = d.random(channels, fewer, 2, 2, fan=channels)
        x = d.op("ConvTranspose", x, weight, kernel_shape=[2, 2], strides=[2, 2])
        x, channels = double(d.op("Concat", skip, x, axis=1), 2 * fewer, fewer), fewer
    return d.model(d.conv(x, channels, 2), side)


NETWORKS: Mapping[str, Callable[..., onnx.ModelProto]] = MappingProxyType(
    {"resnet": resnet, "transformer": transformer, "detector": detector, "unet": unet}
)
