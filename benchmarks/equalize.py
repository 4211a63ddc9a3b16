"""Time and effect of `equalize` on two models: yours, and a ResNet-50-like one of 100 MB.

    python benchmarks/equalize.py MODEL --calibration DATA --preprocess P

The second model has ResNet-50's layers with random weights whose channels differ in size; only
its time means something. Spreads are the five numbers of a boxplot: minimum, quartiles and maximum
of the largest weight of each output channel.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxq
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxq.equalization.equalize import weight_ranges
from onnxq.model.graph import Graph
from onnxq.model.operators import weight_layout
from onnxq.model.weights import WeightLayout

STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))


class ResNet:
    """ResNet-50 in ONNX, batch norms folded."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def value(self, *shape: int, scale: float = 0.1) -> str:
        spread = np.exp2(self.rng.uniform(-3, 3, (shape[0],) + (1,) * (len(shape) - 1)))
        values = (self.rng.standard_normal(shape) * scale * spread).astype(np.float32)
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def conv(self, x: str, inputs: int, outputs: int, size: int, stride: int = 1) -> str:
        weight = self.value(outputs, inputs, size, size, scale=(inputs * size * size) ** -0.5)
        return self.op("Conv", x, weight, self.value(outputs), kernel_shape=[size, size],
                       pads=[size // 2] * 4, strides=[stride, stride])  # fmt: skip

    def block(self, x: str, inputs: int, width: int, stride: int) -> str:
        y = self.op("Relu", self.conv(x, inputs, width, 1))
        y = self.op("Relu", self.conv(y, width, width, 3, stride))
        y = self.conv(y, width, 4 * width, 1)
        if inputs != 4 * width:
            x = self.conv(x, inputs, 4 * width, 1, stride)
        return self.op("Relu", self.op("Add", x, y))

    def model(self) -> onnx.ModelProto:
        x = self.op("Relu", self.conv("x", 3, 64, 7, 2))
        x = self.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
        channels = 64
        for blocks, width, stride in STAGES:
            for number in range(blocks):
                x = self.block(x, channels, width, stride if number == 0 else 1)
                channels = 4 * width
        x = self.op("Flatten", self.op("GlobalAveragePool", x))
        head = (x, self.value(1000, channels, scale=channels**-0.5), self.value(1000))
        x = self.op("Gemm", *head, transB=1)
        image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 96, 96])
        logits = helper.make_tensor_value_info(x, TensorProto.FLOAT, ["N", 1000])
        graph = helper.make_graph(self.nodes, "resnet", [image], [logits], self.weights)
        opset = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opset, ir_version=8)


def five(values: NDArray[np.float64]) -> str:
    return " ".join(f"{q:9.3g}" for q in np.quantile(values, [0, 0.25, 0.5, 0.75, 1]))


def first_depthwise(graph: Graph) -> str:
    for node in graph.nodes:
        layout = weight_layout(graph, node)
        if isinstance(layout, WeightLayout) and layout.groups == layout.inputs > 1:
            return node.name
    return graph.nodes[0].name


def measure(label: str, model: onnxq.Model, data: object, preprocess: str | None) -> None:
    calibration = onnxq.calibrate(model, data, preprocess=preprocess)
    started = time.perf_counter()
    scaled, result = onnxq.equalize(model, calibration=calibration, weights="per-tensor")
    seconds = time.perf_counter() - started
    record = result.equalization
    print(f"{label}: {model.size / 1e6:.0f} MB, {seconds:.1f} s, expected gain "
          f"{record.expected_gain:.1f} dB, float outputs "
          f"{'bit-identical' if record.proof.identical else 'differ'}, "
          f"{len(record.rolled_back)} classes rolled back")  # fmt: skip
    before, after = Graph(model), Graph(scaled)
    node = first_depthwise(after)
    print(f"  largest weight of each output channel of {node}:")
    print("          minimum  quartile    median  quartile   maximum   max / median")
    for name, graph in (("before", before), ("after", after)):
        if graph.node_named(node) is None:
            continue
        ranges = weight_ranges(graph, node)
        print(f"  {name:6s} {five(ranges)}  {ranges.max() / np.median(ranges):13.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--preprocess")
    options = parser.parse_args()
    measure(options.model, onnxq.load(options.model), options.calibration, options.preprocess)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet.onnx"
        onnx.save(ResNet().model(), path)
        measure("like ResNet-50", onnxq.load(path), "random:8", None)


if __name__ == "__main__":
    main()
