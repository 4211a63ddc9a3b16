"""Real command lines on a small real network, in a folder of the test's own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from onnxq.cli.group import onnxq

if TYPE_CHECKING:
    from pathlib import Path

SIDE, CLASSES = 8, 4


@dataclass(frozen=True)
class Run:
    """One finished command line."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Stdout, all of which must be one document."""
        document: dict[str, Any] = json.loads(self.out)
        return document


def run(*args: object) -> Run:
    """Run `onnxq` in this process."""
    result = CliRunner().invoke(onnxq, [str(arg) for arg in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Run(result.exit_code, result.stdout, result.stderr)


def network(seed: int = 0, *, opset: int = 17) -> onnx.ModelProto:
    """Conv + BN + ReLU6, depthwise Conv + ReLU6, Conv, Add, global pooling, Gemm."""
    generator = np.random.default_rng(seed)

    def values(name: str, *shape: int) -> TensorProto:
        spread = np.exp2(generator.integers(-3, 3, shape[0])).reshape(-1, *[1] * (len(shape) - 1))
        array = generator.standard_normal(shape) * spread / np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array(array.astype(np.float32), name)

    def constant(name: str, array: Any) -> TensorProto:
        return numpy_helper.from_array(np.asarray(array, np.float32), name)

    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c1", "g", "b", "m", "v"], ["n1"], "bn1"),
        node("Clip", ["n1", "zero", "six"], ["r1"], "relu1"),
        node("Conv", ["r1", "w2", "b2"], ["c2"], "depthwise", pads=[1, 1, 1, 1], group=8),
        node("Clip", ["c2", "zero", "six"], ["r2"], "relu2"),
        node("Conv", ["r2", "w3", "b3"], ["c3"], "project"),
        node("Add", ["r1", "c3"], ["a"], "add"),
        node("GlobalAveragePool", ["a"], ["p"], "pool"),
        node("Flatten", ["p"], ["f"], "flatten"),
        node("Gemm", ["f", "w4", "b4"], ["y"], "classifier", transB=1),
    ]
    weights = [
        values("w1", 8, 3, 3, 3), values("w2", 8, 1, 3, 3), values("w3", 8, 8, 1, 1),
        values("w4", CLASSES, 8), constant("b2", np.full(8, 0.1)), constant("b3", np.zeros(8)),
        constant("b4", np.arange(CLASSES)), constant("g", np.linspace(0.5, 2, 8)),
        constant("b", np.linspace(0, 1, 8)), constant("m", np.zeros(8)), constant("v", np.ones(8)),
        constant("zero", 0), constant("six", 6),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", CLASSES])],
        weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@dataclass(frozen=True)
class Case:
    """A folder with a model, labelled arrays and images of classes."""

    folder: Path
    model: Path
    data: Path
    images: Path

    @property
    def out(self) -> Path:
        """Where results go; it does not exist yet."""
        return self.folder / "out.onnx"

    @property
    def calib(self) -> Path:
        return self.folder / "out.calib"

    def files(self) -> set[str]:
        """What lies in the folder, hidden files too."""
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}
