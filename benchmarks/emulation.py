"""The emulator beside float inference, fake quantization and ONNX Runtime's integer kernels.

    python benchmarks/emulation.py MODEL --calibration DATA --test DATA --preprocess P
    python benchmarks/emulation.py --kernels

The first quantizes MODEL for each target and prints time as a ratio to float inference (in one run,
best of several, batches of 8, one thread), how the emulator agrees layer by layer with the CPU
provider, whether onnx's reference evaluator computes the same integers, and accuracy beside fake
quantization. The second compares kernels that can sum integers exactly.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxq import api
from onnxq.emulation.agreement import agreement
from onnxq.emulation.emulate import Emulator, emulator
from onnxq.model.graph import Graph
from onnxq.model.operators import is_quantize
from onnxq.model.session import open_session, run, with_outputs
from onnxq.validation.metrics import METRICS

BATCH = 8
REFERENCE_SAMPLES = 16
Run = Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]


def best_times(functions: dict[str, Callable[[], object]], rounds: int = 15) -> dict[str, float]:
    """Seconds of the fastest call of each, taken in turns so that all see the same machine."""
    found = dict.fromkeys(functions, float("inf"))
    for function in functions.values():
        function()
    for _ in range(rounds):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            found[name] = min(found[name], time.perf_counter() - started)
    return found


def runners(float_model: api.Model, int8: api.Model, threads: int) -> dict[str, Run]:
    exact = open_session(float_model, threads=threads)
    fake = open_session(int8, optimize=False, threads=threads)
    kernels = open_session(int8, threads=threads)
    machine = emulator(int8, threads=threads)
    return {
        "float": lambda feeds: run(exact, None, feeds),
        "emulate": lambda feeds: machine.run(feeds)[0],
        "fake": lambda feeds: run(fake, None, feeds),
        "cpu": lambda feeds: run(kernels, None, feeds),
    }


def show_times(functions: dict[str, Run], feeds: Mapping[str, np.ndarray]) -> None:
    times = best_times({name: lambda f=f: f(feeds) for name, f in functions.items()})
    for name, seconds in times.items():
        ratio = seconds / times["float"]
        print(f"  {name:8s} {seconds * 1e3 / BATCH:8.3f} ms a sample, {ratio:5.2f} × float")


def accuracy(functions: dict[str, Run], source: api.DataSource) -> None:
    sums: dict[tuple[str, str], np.ndarray] = {}
    for batch in source.batches(BATCH):
        outputs = {name: function(batch.feeds)[0] for name, function in functions.items()}
        for name, output in outputs.items():
            for metric in ("top1", "sqnr"):
                other = batch.labels if metric == "top1" else outputs["float"]
                terms = METRICS[metric].terms(output, other)
                sums[name, metric] = sums.get((name, metric), 0) + terms
    for name in functions:
        top1, sqnr = (METRICS[m].finish(sums[name, m]) for m in ("top1", "sqnr"))
        print(f"  {name:8s} top-1 {top1:6.2f} %   SQNR {sqnr:6.2f} dB")


def against_reference(machine: Emulator, feeds: Mapping[str, np.ndarray]) -> None:
    """Every integer tensor, by ONNX Runtime and by onnx's reference evaluator."""
    graph = Graph(machine.machine)
    names = [n.output for n in graph.nodes if is_quantize(n)]
    proto = with_outputs(machine.machine, names)
    for value, name in zip(proto.graph.output, names, strict=True):
        value.CopyFrom(helper.make_tensor_value_info(name, graph.elem_type(name), None))
    for entry in proto.opset_import:
        # The evaluator of onnx 1.23 has no DequantizeLinear of sets 13 to 18.
        entry.version = max(entry.version, 19) if entry.domain == "" else entry.version
    ours = run(open_session(with_outputs(machine.machine, names), keep_qdq=True), names, feeds)
    theirs = ReferenceEvaluator(proto).run(names, dict(feeds))
    differing = sum(int((a != b).sum()) for a, b in zip(ours, theirs, strict=True))
    print(f"  reference evaluator: {differing} of {sum(a.size for a in ours):,} values differ "
          f"in {len(names)} tensors")  # fmt: skip


def against_kernels(machine: Emulator, source: api.DataSource) -> None:
    totals: dict[str, list[float]] = defaultdict(lambda: [0, 0, 0, 0])
    reasons: dict[str, set[str]] = defaultdict(set)
    for layer in agreement(machine, (batch.feeds for batch in source.batches(BATCH))):
        key = "+".join(k for k in layer.kernels if k != "Transpose") or "none"
        found = totals[key]
        found[0] += 1
        found[1] += layer.values
        found[2] += layer.differing
        found[3] = max(found[3], layer.largest)
        reasons[key] |= {layer.reason} - {""}
    for key, (layers, values, differing, largest) in totals.items():
        share = f"{differing:7,d} differ ({differing / values:.1e}) by at most {largest} LSB"
        print(f"  {key:34s} {layers:3d} layers {values:13,d} values {share}")
        for reason in sorted(reasons[key]):
            print(f"  {'':34s} {reason}")


def measure(options: argparse.Namespace) -> None:
    float_model = api.load(options.model)
    test = api.as_source(options.test, float_model, preprocess=options.preprocess,
                         samples=options.samples)  # fmt: skip
    few = api.as_source(options.test, float_model, preprocess=options.preprocess,
                        samples=options.compared)  # fmt: skip
    for target in options.targets.split(","):
        int8, _ = api.quantize(
            float_model, options.calibration, preprocess=options.preprocess, target=target
        )
        started = time.perf_counter()
        machine = emulator(int8)
        built = time.perf_counter() - started
        print(f"{options.model}, target {target}: built in {built:.2f} s")
        functions = runners(float_model, int8, options.threads)
        show_times(functions, next(iter(test.batches(BATCH))).feeds)
        accuracy(functions, test)
        against_reference(machine, next(iter(few.batches(REFERENCE_SAMPLES))).feeds)
        against_kernels(machine, few)


# --- kernels ---------------------------------------------------------------------------------

SHAPES = (
    (32, 32, 3, 32, 48), (16, 96, 1, 1, 48), (96, 24, 1, 1, 24), (144, 144, 3, 144, 24),
    (192, 64, 1, 1, 12), (384, 384, 3, 384, 6), (960, 320, 1, 1, 3), (64, 64, 3, 1, 24),
)  # fmt: skip
"""Input and output channels, kernel, groups, side."""


def convolution(
    op_type: str, shape: tuple[int, ...], weight: np.ndarray, *zeros: np.ndarray
) -> Run:
    c, _, k, group, side = shape
    data = TensorProto.FLOAT if op_type == "Conv" else TensorProto.UINT8
    node = helper.make_node(
        op_type, ["x", "w", *("ab"[: len(zeros)])], ["y"], pads=[k // 2] * 4, group=group
    )
    values = {"w": weight, **dict(zip("ab", zeros, strict=False))}
    graph = helper.make_graph(
        [node], "kernel", [helper.make_tensor_value_info("x", data, ["N", c, side, side])],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    session = open_session(helper.make_model(graph, opset_imports=opset, ir_version=8))
    return lambda feeds: run(session, None, feeds)


def kernels() -> None:
    generator = np.random.default_rng(0)
    print("channels, kernel, groups, side:  ms for 8 samples with float32 Conv, "
          "ConvInteger u8·u8, ConvInteger u8·s8")  # fmt: skip
    for shape in SHAPES:
        c, out, k, group, side = shape
        x = generator.integers(0, 256, (BATCH, c, side, side)).astype(np.uint8)
        w = generator.integers(-127, 128, (out, c // group, k, k)).astype(np.int8)
        zero = np.array(3, np.uint8)
        real = {"x": x.astype(np.float32)}
        candidates = {
            "float": (convolution("Conv", shape, w.astype(np.float32)), real),
            "u8u8": (convolution("ConvInteger", shape, (w.astype(int) + 128).astype(np.uint8),
                                 zero, np.array(128, np.uint8)), {"x": x}),
            "u8s8": (convolution("ConvInteger", shape, w, zero, np.array(0, np.int8)), {"x": x}),
        }  # fmt: skip
        times = best_times({n: lambda f=f, v=v: f(v) for n, (f, v) in candidates.items()})
        print(f"  {shape!s:28s}" + "".join(f"{t * 1e3:9.3f}" for t in times.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?")
    parser.add_argument("--calibration")
    parser.add_argument("--test")
    parser.add_argument("--preprocess")
    parser.add_argument("--targets", default="cpu,gpu")
    parser.add_argument("--samples", type=int, help="of the test data, for accuracy")
    parser.add_argument("--compared", type=int, default=64, help="samples compared layer by layer")
    parser.add_argument("--threads", type=int, default=1, help="0 lets ONNX Runtime choose")
    parser.add_argument("--kernels", action="store_true")
    options = parser.parse_args()
    if options.kernels:
        kernels()
    if options.model:
        measure(options)


if __name__ == "__main__":
    main()
