"""Throughput, memory and agreement on a provider: float, float16, int8 with either float rest.

    python benchmarks/gpu.py MODEL… --calibration DATA --test DATA --preprocess P [--provider cpu]

Images a second are medians of runs in turn; memory is that of the process on the device, as
nvidia-smi tells (on the CPU: none). Agreement is that of the emulator with the provider: of the
first output (SQNR of the provider's against the emulator's) and layer by layer, each from the same
inputs (share of values that differ, largest difference in steps).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np
import onnxq
from onnxq.api import compare_layers
from onnxq.model.model import Model
from onnxq.validation.execute import runner
from onnxq.validation.metrics import metric_named

REPEATS, BATCH, SAMPLES = 30, 64, 512


def throughput(model: Model, provider: str) -> tuple[float, str]:
    """Images a second, and device memory in MiB."""
    run = runner(model, provider)
    (spec,) = model.inputs
    shape = [size if isinstance(size, int) else BATCH for size in spec.shape or ()]
    feeds = {spec.name: np.random.default_rng(0).standard_normal(shape).astype(spec.dtype)}
    run(feeds)
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        run(feeds)
        times.append(time.perf_counter() - started)
    return shape[0] / statistics.median(times), device_memory(provider)


def device_memory(provider: str) -> str:
    if provider != "cuda":
        return "–"
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    found = dict(line.split(", ") for line in lines if line)
    return found.get(str(os.getpid()), "not told")


def agreement(model: Model, options: argparse.Namespace) -> str:
    """Of the outputs in dB, and of the layers."""
    chosen = {"preprocess": options.preprocess, "samples": SAMPLES}
    emulated = onnxq.emulate(model, options.test, **chosen).outputs
    run = runner(model, options.provider)
    source = onnxq.api.as_source(options.test, model, **chosen)
    found = [run(batch.feeds)[0] for batch in source.batches(BATCH)]
    expected = next(iter(emulated.values()))
    sqnr = metric_named("sqnr")
    outputs = sqnr.finish(sqnr.terms(np.concatenate(found), expected))
    layers = compare_layers(
        model, options.test, provider=options.provider, preprocess=options.preprocess
    )
    share = sum(each.differing for each in layers) / sum(each.values for each in layers)
    return f"{outputs:8.1f}    {len(layers)}, {100 * share:.2g} %, {max(e.largest for e in layers)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--preprocess", required=True)
    parser.add_argument("--provider", choices=("cuda", "cpu"), default="cuda")
    options = parser.parse_args()
    print(" " * 43 + "   images   memory    top-1     SQNR    agreement with the emulator")
    print("model                     variant           a second      MiB        %       dB    "
          "output dB; layers, values, steps")  # fmt: skip
    for path in options.models:
        model = onnxq.load(path)
        variants = {"float": model}
        variants["float16"], _ = onnxq.quantize(
            model, options.calibration, preprocess=options.preprocess, rest="fp16", exclude=[".*"]
        )
        for rest in ("fp32", "fp16"):
            variants[f"int8, {rest} rest"], _ = onnxq.quantize(
                model, options.calibration, preprocess=options.preprocess, rest=rest
            )
        found = onnxq.validate(
            model, list(variants.values())[1:], options.test, preprocess=options.preprocess,
            executions=[options.provider],
        )  # fmt: skip
        for (label, variant), row in zip(variants.items(), found.rows, strict=True):
            speed, memory = throughput(variant, options.provider)
            agreed = agreement(variant, options) if label.startswith("int8") else ""
            top1, sqnr = (row.values.get(name, float("nan")) for name in ("top1", "sqnr"))
            print(
                f"{path.name:25s} {label:17s} {speed:9.0f} {memory:>6} {top1:8.2f} {sqnr:8.2f}"
                f"    {agreed}",
                flush=True,
            )


if __name__ == "__main__":
    main()
