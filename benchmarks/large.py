"""Calibrate and quantize a model above 3 GB: seconds and peak memory of each command.

    python benchmarks/large.py [--gigabytes 3.2] [--limit 8]

The model is a chain of Gemm and Relu with random weights in a data file beside it, made one weight
at a time. Fails if a command's peak memory is above the limit.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

SIDE = 4096
"""Rows and columns of a weight: 64 MiB."""


def make(path: Path, gigabytes: float) -> int:
    """Write the model; the number of its layers."""
    layers = math.ceil(gigabytes * 1e9 / (4 * SIDE * SIDE))
    rng = np.random.default_rng(0)
    nodes, weights = [], []
    data = path.with_name("weights.data")
    with data.open("wb") as stream:
        for layer in range(layers):
            value = rng.standard_normal((SIDE, SIDE), np.float32) * np.float32(math.sqrt(2 / SIDE))
            weight = TensorProto(name=f"w{layer}", data_type=TensorProto.FLOAT, dims=(SIDE, SIDE))
            weight.data_location = TensorProto.EXTERNAL
            for key, text in (("location", data.name), ("offset", str(stream.tell())),
                              ("length", str(value.nbytes))):  # fmt: skip
                weight.external_data.add(key=key, value=text)
            stream.write(value.tobytes())
            weights.append(weight)
            source = f"r{layer - 1}" if layer else "x"
            nodes.append(helper.make_node("Gemm", [source, weight.name], [f"g{layer}"]))
            nodes.append(helper.make_node("Relu", [f"g{layer}"], [f"r{layer}"]))
    info = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", SIDE])
        for name in ("x", f"r{layers - 1}")
    ]
    graph = helper.make_graph(nodes, "large", info[:1], info[1:], weights)
    opset = [helper.make_opsetid("", 17)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    )
    onnx.checker.check_model(str(path))
    return layers


def command(*arguments: str) -> tuple[float, float]:
    """Wall seconds and peak resident memory (GB) of an onnxq command in a process of its own."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "onnxq", *arguments, "-q"])
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"failed: onnxq {' '.join(arguments)}")
    return time.monotonic() - started, usage.ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=3.2)
    parser.add_argument("--limit", type=float, default=8.0, help="GB of memory")
    parser.add_argument("--samples", type=int, default=16)
    options = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model = work / "large.onnx"
        layers = make(model, options.gigabytes)
        size = sum(path.stat().st_size for path in work.iterdir()) / 1e9
        print(f"{layers} layers, {size:.2f} GB", flush=True)
        calibration, data = str(work / "large.calib"), f"random:{options.samples}"
        for label, arguments in {
            "calibrate": ("calibrate", str(model), "--data", data, "-o", calibration),
            "quantize, calibration done": (
                "quantize", str(model), "--calibration", calibration, "-o", str(work / "a.onnx"),
            ),
            "quantize, with data": (
                "quantize", str(model), "--data", data, "-o", str(work / "b.onnx"),
            ),
        }.items():  # fmt: skip
            seconds, peak = command(*arguments)
            worst = max(worst, peak)
            print(f"{label:28s} {seconds:7.1f} s, peak memory {peak:5.2f} GB", flush=True)
    if worst > options.limit:
        raise SystemExit(f"above {options.limit} GB")


if __name__ == "__main__":
    main()
