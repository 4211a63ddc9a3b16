"""What each mode of `--relu6` gives and costs on one model, as a table.

    python benchmarks/relu6.py MODEL --calibration DATA --test DATA --preprocess P

For each mode: the float model after equalization (its SQNR against the original on the test data,
its kernels, its run time on the CPU relative to the original) and int8 with per-tensor weights.
Times are ratios of medians measured turn by turn in one process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
from steps import run

MODES = ("skip", "tie", "relu", "per-channel", "auto")


def session(path: Path | str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def time_ratios(paths: list[Path | str], repeats: int = 30) -> list[float]:
    """Median time of each model over that of the first, run in turns."""
    sessions = [session(path) for path in paths]
    spec = sessions[0].get_inputs()[0]
    shape = [size if isinstance(size, int) else 1 for size in spec.shape]
    feeds = {spec.name: np.random.default_rng(0).normal(size=shape).astype(np.float32)}
    times: list[list[float]] = [[] for _ in sessions]
    for _ in range(repeats):
        for found, one in zip(times, sessions, strict=True):
            started = time.perf_counter()
            one.run(None, feeds)
            found.append(time.perf_counter() - started)
    medians = [statistics.median(found) for found in times]
    return [median / medians[0] for median in medians]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--preprocess", required=True)
    options = parser.parse_args()
    images = ("--data", options.calibration, "--preprocess", options.preprocess)
    test = ("--data", options.test, "--preprocess", options.preprocess)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        run("calibrate", options.model, *images, "-o", str(work / "model.calib"))
        rows = []
        for mode in MODES:
            equalized, int8 = work / f"{mode}.onnx", work / f"{mode}.int8.onnx"
            cost = run("equalize", options.model, "-o", str(equalized), "--relu6", mode,
                       "--calibration", str(work / "model.calib"), "--json")  # fmt: skip
            run("quantize", str(equalized), "-o", str(int8), *images, "--weights", "per-tensor",
                "--no-equalize")  # fmt: skip
            found = run("validate", options.model, str(equalized), str(int8), *test, "--json")
            _, changed, quantized = (row["metrics"] for row in json.loads(found.output)["rows"])
            rows.append((mode, cost.seconds, changed, quantized))
        ratios = time_ratios([options.model, *(work / f"{mode}.onnx" for mode in MODES)])[1:]
        print("            equalize  float    float     int8      int8    float time")
        print("mode         seconds  top-1 %  SQNR dB   top-1 %   SQNR dB / original")
        for (mode, seconds, changed, quantized), ratio in zip(rows, ratios, strict=True):
            sqnr = changed["sqnr"]["value"]
            print(
                f"{mode:12s} {seconds:7.1f} {changed['top1']['value']:8.2f} "
                f"{sqnr if isinstance(sqnr, str) else format(sqnr, '.1f'):>8} "
                f"{quantized['top1']['value']:9.2f} {quantized['sqnr']['value']:9.2f} "
                f"{ratio:10.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
