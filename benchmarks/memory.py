"""Peak memory of each command by resolution, of a model that takes images of any size.

    python benchmarks/memory.py MODEL --sides 320,640,960 [--samples N] [--memory SIZE]

Each command runs in a process of its own, on random images; MODEL's input is [samples, 3, height,
width].
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx

ONNXQ = (sys.executable, "-m", "onnxq")
MEASURED = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak_of(*arguments: object) -> tuple[float, float]:
    """Peak in GB and seconds of one command."""
    started = time.monotonic()
    command = [sys.executable, "-c", MEASURED, *ONNXQ, *map(str, arguments), "-q"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    code, kibibytes = map(int, done.stdout.split())
    if code:
        sys.exit(f"onnxq {arguments[0]} ended with {code}: {done.stderr.strip()}")
    return kibibytes * 1024 / 1e9, time.monotonic() - started


def measure(model: Path, side: int, samples: int, options: list[str], folder: Path) -> None:
    name = onnx.load(model, load_external_data=False).graph.input[0].name
    images = np.random.default_rng(0).random((samples, 3, side, side), np.float32)
    data, int8 = folder / "data.npz", folder / "int8.onnx"
    np.savez(data, **{name: images})
    given = ("--data", data, *options)
    commands = {
        "calibrate": ("calibrate", model, *given, "-o", folder / "m.calib"),
        "equalize": ("equalize", model, *given, "-o", folder / "equalized.onnx"),
        "quantize": ("quantize", model, *given, "-o", int8),
        "validate": ("validate", model, int8, *given),
        "layers": ("validate", model, int8, *given, "--layers"),
        "report": ("report", model, int8, *given, "-o", folder / "report.html"),
        "emulate": ("emulate", int8, *given),
    }
    for label, arguments in commands.items():
        gigabytes, seconds = peak_of(*arguments)
        print(f"{side:5d} px  {label:10s} {gigabytes:6.2f} GB {seconds:7.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--sides", default="320,640")
    parser.add_argument("--samples", type=int, default=12)
    parser.add_argument("--memory")
    given = parser.parse_args()
    options = ["--memory", given.memory] if given.memory else []
    with tempfile.TemporaryDirectory(prefix="onnxq.") as folder:
        for side in map(int, given.sides.split(",")):
            measure(given.model, side, given.samples, options, Path(folder))


if __name__ == "__main__":
    main()
