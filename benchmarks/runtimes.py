#!/usr/bin/env python3
"""A model in the runtimes of targets: accuracy beside the emulator's, integer kernels, CPU time.

    python benchmarks/runtimes.py model.onnx --calibration images/ --validation more/ \
        --preprocess imagenet --input-shape 1x3x224x224 [--web FOLDER] [--targets cpu web …]

Runs what is installed: `make runtimes` makes an environment with OpenVINO and onnxruntime-web
(FOLDER is .venv-runtimes then), with QNN=1 QNN's simulator too. A target may have its scheme behind
a colon, `openvino:w7a8`. With `--onnxruntime PYTHON`, once for each, the model of `cpu` runs in
that Python's ONNX Runtime as well. `--keep FOLDER` takes quantized models from there, and leaves
them there. Time is that of the CPU, int8 over float in the same runtime, one thread, one sample,
runs interleaved, median of the ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxq
from onnxq.closeness import add_sums, closeness, sums_of, worst_sqnr
from onnxq.commands.inputs import as_source
from onnxq.data.sizes import parse_shapes
from onnxq.emulation.agreement import INTEGER_KERNELS
from onnxq.errors import OnnxqError
from onnxq.model.model import Model
from onnxq.model.session import open_session, run
from onnxq.model.static import with_shapes
from onnxq.report.table import decibels

HERE = Path(__file__).parent
IN_WASM = HERE.parent / "tests" / "runtimes" / "web.mjs"
IN_ONNX_RUNTIME = HERE / "in_onnxruntime.py"
RUNS = 30
PACKAGES = {"openvino": "openvino", "qnn": "onnxruntime_qnn"}


@dataclass(frozen=True)
class Pair:
    """A float model and the quantized one, as files, with samples to run them on.

    Attributes:
        exact: the float model's outputs for each sample.
        weighted: the nodes that multiply by a weight.
    """

    float_file: Path
    int8_file: Path
    feeds: list[dict]
    exact: list[dict]
    weighted: list[str]


def timed(make: Callable[[Path], Callable[[], object]], pair: Pair) -> float:
    """CPU time of the quantized model over the float one's."""
    runs = [make(path) for path in (pair.float_file, pair.int8_file)]
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


def elsewhere(command: list, pair: Pair, optimized: str = "") -> tuple[dict, str, str]:
    """What a process says that runs the pair; its SQNR of the worst output, its ratio of times."""
    folder = pair.int8_file.parent
    described = []
    for index, feed in enumerate(pair.feeds):
        each = {}
        for name, values in feed.items():
            file = folder / f"{index}.{name}.bin"
            file.write_bytes(np.ascontiguousarray(values).tobytes())
            each[name] = {"shape": values.shape, "file": str(file), "type": values.dtype.name}
        described.append(each)
    asked = {"feeds": described, "runs": RUNS, "beside": str(pair.float_file)}
    request = folder / "request.json"
    request.write_text(json.dumps({**asked, "optimized": optimized}))
    done = subprocess.run(
        [*command, pair.int8_file, request], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    said = json.loads(done.stdout)
    sums: dict = {}
    for exact, files in zip(pair.exact, said["outputs"], strict=True):
        got = {
            name: np.fromfile(files[name], wanted.dtype).reshape(wanted.shape)
            for name, wanted in exact.items()
        }
        add_sums(sums, sums_of(exact, got, 1))
    ratio = f"{statistics.median(said['ratios']):.2f}"
    return said, decibels(worst_sqnr(closeness(sums))), ratio


def in_onnx_runtime(python: str, pair: Pair) -> str:
    """A row for another ONNX Runtime's CPU provider, but for what the emulator says."""
    optimized = pair.int8_file.with_name("optimized.onnx")
    said, there, ratio = elsewhere([python, IN_ONNX_RUNTIME], pair, str(optimized))
    kinds = {node.name: node.op_type for node in onnx.load(optimized).graph.node}
    integer = sum(kinds.get(name, "").startswith(INTEGER_KERNELS) for name in pair.weighted)
    return f"{said['version']} | {{}} | {there} | {integer} / {len(pair.weighted)} | {ratio}"


@contextlib.contextmanager
def paired(float_model: Model, made: Model, chosen: argparse.Namespace) -> Iterator[Pair]:
    """The models as files, in a folder that goes away."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("float.onnx", "int8.onnx")]
        plain = with_shapes(float_model, parse_shapes(chosen.input_shape, float_model.inputs))
        for model, path in zip((plain, made), files, strict=True):
            onnxq.save(model, path)
        source = as_source(
            chosen.validation, plain, preprocess=chosen.preprocess, samples=chosen.samples
        )
        feeds = [dict(each) for batch in source.batches(8) for each in batch.feeds.singles()]
        session = open_session(files[0])
        names = [spec.name for spec in plain.outputs]
        exact = [dict(zip(names, run(session, None, feed), strict=True)) for feed in feeds]
        seen = onnxq.inspect(made, kernels=True).kernels
        yield Pair(*files, feeds, exact, [each.node for each in seen if each.weighted])


def quantized(float_model: Model, target: str, scheme: str, chosen: argparse.Namespace) -> Model:
    """Taken from the folder of `--keep` where it lies there."""
    name = f"{chosen.model.stem}.{target}.{scheme}.onnx"
    kept = Path(chosen.keep) / name if chosen.keep else None
    if kept and kept.exists():
        return onnxq.load(kept)
    made, _ = onnxq.quantize(
        float_model, chosen.calibration, target=target, scheme=scheme,
        preprocess=chosen.preprocess, samples=chosen.calibration_samples,
        rounding=chosen.rounding, input_shapes=chosen.input_shape,
    )  # fmt: skip
    if kept:
        onnxq.save(made, kept)
    return made


def rows(float_model: Model, wanted: str, chosen: argparse.Namespace) -> Iterator[str]:
    """Of one target, in its runtime and, for `cpu`, in each other ONNX Runtime."""
    target, _, scheme = wanted.partition(":")
    execution = target if target in PACKAGES else "cpu"
    if execution in PACKAGES and importlib.util.find_spec(PACKAGES[execution]) is None:
        yield "not installed | | | | "
        return
    made = quantized(float_model, target, scheme or "w8a8", chosen)
    found = onnxq.validate(
        float_model, made, chosen.validation, preprocess=chosen.preprocess,
        samples=chosen.samples, metrics=["sqnr"],
        executions=["emulate"] if target == "web" else ["emulate", execution],
    )  # fmt: skip
    emulated, *there = (decibels(row.values["sqnr"]) for row in found.rows[1:])
    seen = onnxq.inspect(made, kernels=True, target=target if target in PACKAGES else None)
    layers = [each for each in seen.kernels if each.weighted]
    integer = f"{sum(each.integer for each in layers)} / {len(layers)}"
    with paired(float_model, made, chosen) as pair:
        if target == "web":
            _, sqnr, ratio = elsewhere(["node", IN_WASM, chosen.web], pair)
            yield f"wasm | {emulated} | {sqnr} | {integer} | {ratio}"
            return
        ratio = "–"
        if target != "qnn":
            make = in_openvino if target == "openvino" else on_cpu
            ratio = f"{timed(make(pair.feeds[0]), pair):.2f}"
        yield f"{execution} | {emulated} | {there[0]} | {integer} | {ratio}"
        for python in chosen.onnxruntime if target == "cpu" else ():
            yield in_onnx_runtime(python, pair).format(emulated)


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
    parser.add_argument("--onnxruntime", action="append", default=[])
    parser.add_argument("--keep", default="")
    parser.add_argument("--targets", nargs="+", default=["cpu", "web", "openvino", "qnn"])
    chosen = parser.parse_args()
    float_model = onnxq.load(chosen.model)
    print("| target | runs in | emulated dB | dB there | layers in integers | time |")
    print("| --- | --- | --- | --- | --- | --- |")
    for target in chosen.targets:
        try:
            for row in rows(float_model, target, chosen):
                print(f"| `{target}` | {row} |", flush=True)
        except OnnxqError as error:
            print(f"| `{target}` | {error} | | | | |", file=sys.stdout, flush=True)


if __name__ == "__main__":
    main()
