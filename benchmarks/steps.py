"""Accuracy, seconds and peak memory of each step of onnxq on one model, as a table.

    python benchmarks/steps.py MODEL --calibration DATA --test DATA --preprocess P

Each step is the command line in a process of its own, so its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    seconds: float
    megabytes: float
    output: str


def run(*arguments: str) -> Cost:
    """Run `onnxq` with these arguments; its wall time, peak memory and standard output."""
    command = [sys.executable, "-m", "onnxq", *arguments]
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        output.seek(0)
        text = output.read()
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"failed: {' '.join(command)}")
    return Cost(seconds, usage.ru_maxrss / 1024, text)


VARIANTS = (
    ("int8 per-tensor, minmax, nothing else",
     ("--weights", "per-tensor", "--no-equalize", "--no-bias-correction",
      "--rounding", "nearest", "--ranges", "minmax")),
    ("int8 per-channel, minmax, nothing else",
     ("--no-equalize", "--no-bias-correction",
      "--rounding", "nearest", "--ranges", "minmax")),
    ("int8 per-tensor, no equalization", ("--weights", "per-tensor", "--no-equalize")),
    ("int8 per-tensor, no bias correction", ("--weights", "per-tensor", "--no-bias-correction")),
    ("int8 per-tensor, no bias absorption", ("--weights", "per-tensor", "--no-absorb-bias")),
    ("int8 per-tensor", ("--weights", "per-tensor")),
    ("int8 per-tensor, nearest rounding", ("--weights", "per-tensor", "--rounding", "nearest")),
    ("int8 per-channel, no equalization", ("--no-equalize",)),
    ("int8 per-channel, no bias correction", ("--no-bias-correction",)),
    ("int8 per-channel, no bias absorption", ("--no-absorb-bias",)),
    ("int8 per-channel, minmax", ("--ranges", "minmax")),
    ("int8 per-channel, percentile", ("--ranges", "percentile")),
    ("int8 per-channel, entropy", ("--ranges", "entropy")),
    ("int8 per-channel, scales powers of two", ("--scale", "power-of-two")),
    ("int8 per-channel (default)", ()),
    ("int8 per-channel, nearest rounding", ("--rounding", "nearest")),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--preprocess", required=True)
    parser.add_argument("--targets", default="gpu,cpu")
    parser.add_argument("--execution", default="emulate")
    parser.add_argument("--only", default="", help="run the variants whose label matches this")
    options = parser.parse_args()
    images = ("--data", options.calibration, "--preprocess", options.preprocess)
    test = ("--data", options.test, "--preprocess", options.preprocess)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        print(f"{'step':44s} {'seconds':>8s} {'peak MB':>8s} {'top-1 %':>8s} {'SQNR dB':>8s}")
        cost = run("calibrate", options.model, *images, "-o", str(work / "model.calib"))
        show("calibrate", cost)
        cost = run("equalize", options.model, "-o", str(work / "equalized.onnx"),
                   "--calibration", str(work / "model.calib"))  # fmt: skip
        show("equalize, calibration done", cost)
        for target in options.targets.split(","):
            for number, (label, flags) in enumerate(VARIANTS):
                if not re.search(options.only, label):
                    continue
                path = str(work / f"{target}{number}.onnx")
                cost = run(
                    "quantize", options.model, *images, "-o", path, "--target", target, *flags
                )
                found = run("validate", options.model, path, *test, "--json",
                            "--execution", options.execution)  # fmt: skip
                rows = json.loads(found.output)["rows"]
                show(f"{target}: {label}", cost, rows[-1]["metrics"])
        show("validate (float and one int8)", found, rows[0]["metrics"])


def show(label: str, cost: Cost, metrics: dict[str, dict[str, object]] | None = None) -> None:
    found = [(metrics or {}).get(name, {}).get("value") for name in ("top1", "sqnr")]
    numbers = "".join(f" {value:8.2f}" if isinstance(value, float) else " " * 9 for value in found)
    print(f"{label:44s} {cost.seconds:8.1f} {cost.megabytes:8.0f}{numbers}", flush=True)


if __name__ == "__main__":
    main()
