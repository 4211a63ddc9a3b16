#!/usr/bin/env python3
"""Make testdata/0.1/: files of onnxq 0.1, which every later onnxq reads and takes for the same.

    python scripts/files_of_0_1.py

The files are in the repository and stay as they are; this says how they came about. It runs the
command line of the last commit of 0.1, whose package it takes out of the history.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper
from PIL import Image
from same_bytes import ROOT, unpack

COMMIT = "3d8af92"
FOLDER = ROOT / "testdata" / "0.1"
SIDE, CLASSES = 8, 4

COMMANDS = """
calibrate tiny.onnx --data images --preprocess unit,mean=0.5,std=0.25 -o tiny.calib
quantize tiny.onnx --calibration tiny.calib --rounding nearest --no-bias-correction --target cpu -o nearest.int8.onnx
equalize tiny.onnx --calibration tiny.calib --relu6 per-channel -o equalized.onnx
quantize equalized.onnx --data images --preprocess unit,mean=0.5,std=0.25 --exclude ^classifier$ -o adaptive.int8.onnx
calibrate ../exports/dynamo-20.onnx --data random:16 -o dynamo-20.calib
"""
RECIPES = {"nearest.int8.onnx": "nearest.toml", "adaptive.int8.onnx": "adaptive.toml"}


def network() -> ModelProto:
    """Conv + BN + ReLU6, a depthwise one, a projection with a residual, pooling and a classifier.

    Channels differ by powers of two, as those of a network whose int8 weights fail per tensor.
    """
    generator = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> TensorProto:
        spread = np.exp2(generator.integers(-3, 3, shape[0])).reshape(-1, *[1] * (len(shape) - 1))
        values = generator.standard_normal(shape) * spread / np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array(values.astype(np.float32), name)

    def constant(name: str, values: object) -> TensorProto:
        return numpy_helper.from_array(np.asarray(values, np.float32), name)

    node = helper.make_node
    nodes = [
        node("Conv", ["image", "w1"], ["c1"], "stem", pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c1", "gamma", "beta", "mean", "variance"], ["n1"], "norm"),
        node("Clip", ["n1", "zero", "six"], ["r1"], "relu1"),
        node("Conv", ["r1", "w2", "b2"], ["c2"], "depthwise", pads=[1, 1, 1, 1], group=8),
        node("Clip", ["c2", "zero", "six"], ["r2"], "relu2"),
        node("Conv", ["r2", "w3", "b3"], ["c3"], "project"),
        node("Add", ["r1", "c3"], ["sum"], "add"),
        node("GlobalAveragePool", ["sum"], ["pooled"], "pool"),
        node("Flatten", ["pooled"], ["flat"], "flatten"),
        node("Gemm", ["flat", "w4", "b4"], ["logits"], "classifier", transB=1),
    ]
    tensors = [
        weight("w1", 8, 3, 3, 3), weight("w2", 8, 1, 3, 3), weight("w3", 8, 8, 1, 1),
        weight("w4", CLASSES, 8), constant("b2", np.full(8, 0.25)), constant("b3", np.zeros(8)),
        constant("b4", np.arange(CLASSES) / 4), constant("gamma", np.linspace(0.5, 2, 8)),
        constant("beta", np.linspace(0, 1, 8)), constant("mean", np.zeros(8)),
        constant("variance", np.ones(8)), constant("zero", 0), constant("six", 6),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        tensors,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    onnx.save(network(), FOLDER / "tiny.onnx")
    generator = np.random.default_rng(1)
    for number in range(8):
        path = FOLDER / "images" / f"{number % CLASSES}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(path)
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": str(unpack(COMMIT, Path(folder)))}

        def onnxq(*arguments: str) -> str:
            return subprocess.run(
                [sys.executable, "-m", "onnxq", *arguments],
                cwd=FOLDER, env=environment, stdout=subprocess.PIPE, text=True, check=True,
            ).stdout  # fmt: skip

        for line in COMMANDS.strip().splitlines():
            onnxq(*shlex.split(line))
        for model, name in RECIPES.items():
            (FOLDER / name).write_text(onnxq("inspect", model, "--recipe"))


if __name__ == "__main__":
    main()
