#!/usr/bin/env python3
"""A model in the runtimes of targets: accuracy beside the emulator's, integer kernels, CPU time.

    python benchmarks/runtimes.py model.onnx --calibration images/ --validation more/ \
        --preprocess imagenet --input-shape 1x3x224x224 [--web FOLDER] [--targets cpu web …]

Runs what is installed: `make runtimes` makes an environment with OpenVINO and onnxruntime-web
(FOLDER is .venv-runtimes then), with QNN=1 QNN's simulator too. Time is that of the CPU, int8 over
float in the same runtime, one thread, one sample, runs interleaved, median of the ratios.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxq
from onnxq.commands.inputs import as_source
from onnxq.data.sizes import parse_shapes
from onnxq.model.session import open_session, run
from onnxq.model.static import with_shapes
from onnxq.report.table import decibels

SCRIPT = Path(__file__).parents[1] / "tests" / "runtimes" / "web.mjs"
RUNS = 30


def timed(make: Callable[[Path], Callable[[], object]], models: list[Path]) -> float:
    """CPU time of the second model over the first's."""
    runs = [make(path) for path in models]
    for each in runs:
        for _ in range(3):
            each()
    ratios = []
    for _ in range(RUNS):
        spent = []
        for each in runs:
            before = time.process_time()
            each()
            spent.append(time.process_time() - before)
        ratios.append(spent[1] / spent[0])
    return statistics.median(ratios)


def on_cpu(feed: dict) -> Callable:
    def make(path: Path) -> Callable[[], object]:
        session = open_session(path, threads=1)
        return lambda: run(session, None, feed)

    return make


def in_openvino(feed: dict) -> Callable:
    def make(path: Path) -> Callable[[], object]:
        import openvino

        compiled = openvino.Core().compile_model(
            str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        )
        return lambda: compiled(feed)

    return make


def in_wasm(home: str, path: Path, feeds: list[dict], beside: Path | None) -> dict:
    described, folder = [], path.parent
    for index, feed in enumerate(feeds):
        each = {}
        for name, values in feed.items():
            file = folder / f"{index}.{name}.bin"
            file.write_bytes(np.ascontiguousarray(values).tobytes())
            each[name] = {"shape": values.shape, "file": str(file), "type": values.dtype.name}
        described.append(each)
    request = folder / f"{path.stem}.json"
    timed_too = {"runs": RUNS, "beside": str(beside)} if beside else {}
    request.write_text(json.dumps({"feeds": described, **timed_too}))
    done = subprocess.run(
        ["node", SCRIPT, home, path, request], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def web(home: str, models: list[Path], feeds: list[dict]) -> tuple[str, str]:
    """SQNR of the worst output in wasm against the float model there; the ratio of times."""
    exact_model, model = models
    exact = in_wasm(home, exact_model, feeds, None)["outputs"]
    found = in_wasm(home, model, feeds, exact_model)
    worst = np.inf
    for output in exact[0]:
        one, other = (
            np.concatenate([np.fromfile(each[output], np.float32) for each in written])
            for written in (exact, found["outputs"])
        )
        noise = np.square(one - other, dtype=np.float64).sum()
        worst = min(worst, 10 * np.log10(np.square(one, dtype=np.float64).sum() / noise))
    return decibels(worst), f"{statistics.median(found['ratios']):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--validation", required=True)
    parser.add_argument("--preprocess")
    parser.add_argument("--input-shape", action="append", default=[])
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--calibration-samples", type=int, default=256)
    parser.add_argument("--rounding", default="nearest")
    parser.add_argument("--web", default="")
    parser.add_argument("--targets", nargs="+", default=["cpu", "web", "openvino", "qnn"])
    chosen = parser.parse_args()
    shapes = {"input_shapes": chosen.input_shape}
    float_model = onnxq.load(chosen.model)
    packages = {"openvino": "openvino", "qnn": "onnxruntime_qnn"}
    print("| target | runs in | emulated dB | dB there | layers in integers | time |")
    print("| --- | --- | --- | --- | --- | --- |")
    for target in chosen.targets:
        execution = target if target in packages else "cpu"
        if execution in packages and importlib.util.find_spec(packages[execution]) is None:
            print(f"| `{target}` | not installed | | | | |")
            continue
        made, _ = onnxq.quantize(
            float_model, chosen.calibration, target=target, preprocess=chosen.preprocess,
            samples=chosen.calibration_samples, rounding=chosen.rounding, **shapes,
        )  # fmt: skip
        found = onnxq.validate(
            float_model, made, chosen.validation, preprocess=chosen.preprocess,
            samples=chosen.samples, metrics=["sqnr"], executions=["emulate", execution],
        )  # fmt: skip
        emulated, there = (decibels(row.values["sqnr"]) for row in found.rows[1:])
        seen = onnxq.inspect(made, kernels=True, target=target if target in packages else None)
        layers = [each for each in seen.kernels if each.weighted]
        integer = f"{sum(each.integer for each in layers)} / {len(layers)}"
        with tempfile.TemporaryDirectory() as folder:
            models = [Path(folder) / "float.onnx", Path(folder) / "int8.onnx"]
            plain = with_shapes(float_model, parse_shapes(chosen.input_shape, float_model.inputs))
            for model, path in zip((plain, made), models, strict=True):
                onnxq.save(model, path)
            source = as_source(
                chosen.validation, plain, preprocess=chosen.preprocess, samples=chosen.samples
            )
            feeds = [dict(each) for batch in source.batches(8) for each in batch.feeds.singles()]
            ratio = "–"
            if target == "web":
                there, ratio = web(chosen.web, models, feeds) if chosen.web else ("–", "–")
            elif target == "openvino":
                ratio = f"{timed(in_openvino(feeds[0]), models):.2f}"
            elif target != "qnn":
                ratio = f"{timed(on_cpu(feeds[0]), models):.2f}"
        where = "wasm" if target == "web" else execution
        print(f"| `{target}` | {where} | {emulated} | {there} | {integer} | {ratio} |")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
