"""Quantize one detector or reader in several ways; print how close each comes to the float model.

    python run.py MODEL --calibration DATA --test DATA --preprocess P --metric map \\
      --with "--ranges mse" --with "--ranges auto"

Every --with is a row for each target: more options of `onnxq quantize`. The truth is what the float
model finds. Besides the metric a row has the SQNR of each output, of each group of its slices where
these differ much, as boxes and scores do.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        for target in options.target:
            for words in options.extra or [""]:
                made = Path(folder) / "made.onnx"
                _onnxq("quantize", options.model, "--data", options.calibration, "--target", target,
                       "--no-speed", "-o", str(made), *_common(options),
                       *_shapes(options), *shlex.split(words))  # fmt: skip
                said = _onnxq("validate", options.model, str(made), "--data", options.test,
                              "--execution", options.execution, "--metric", options.metric,
                              *_common(options))  # fmt: skip
                print(f"{target} {words}: {_row(said)}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--calibration", required=True, metavar="DATA", help="as onnxq --data")
    parser.add_argument("--test", required=True, metavar="DATA", help="as onnxq --data")
    parser.add_argument("--preprocess", required=True, metavar="P", help="as onnxq --preprocess")
    parser.add_argument("--metric", required=True, metavar="M", help="as onnxq validate --metric")
    parser.add_argument("--target", action="append", metavar="T", help="repeatable")
    parser.add_argument("--with", action="append", dest="extra", metavar="OPTIONS")
    parser.add_argument("--shape", metavar="SHAPE", help="as onnxq --input-shape")
    parser.add_argument("--execution", default="emulate", metavar="E", help="as onnxq validate")
    options = parser.parse_args()
    options.target = options.target or ["cpu", "gpu"]
    return options


def _common(options: argparse.Namespace) -> list[str]:
    return ["--preprocess", options.preprocess, "--json"]


def _shapes(options: argparse.Namespace) -> list[str]:
    return ["--input-shape", options.shape] if options.shape else []


def _onnxq(*words: str) -> Any:
    done = subprocess.run([sys.executable, "-m", "onnxq", *words],
                          capture_output=True, text=True, check=False)  # fmt: skip
    if done.returncode:
        sys.exit(f"{shlex.join(words)}\n{done.stderr}")
    return json.loads(done.stdout)


def _row(said: Any) -> str:
    row = said["rows"][-1]
    parts = [f"{name} {value:.2f}" for metric in row["metrics"].values()
             for name, value in (metric["values"] or {"": metric["value"]}).items()]  # fmt: skip
    for output in row["outputs"]:
        groups = output.get("groups") or [output]
        decibels = "/".join(f"{float(each['sqnr_db']):.1f}" for each in groups)
        parts.append(f"{output['name']} {decibels} dB")
    return ", ".join(parts)


if __name__ == "__main__":
    main()
