"""Time and memory of each command by the size of the model, of its inputs and of the data.

    python benchmarks/scale.py [--axis weights] [--network resnet] [--peers onnxruntime] [--quick]

Each command is a process of its own; its CPU time (user and system, all threads), wall time and
peak memory are printed. "×" is its CPU time beside that of plain inference over the same samples,
in the same run. The power says how CPU time grows along an axis: 1 is linear. Peers are installed
under --cache, as `benchmarks/peers/run.py` does it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
from networks import NETWORKS

PEERS = Path(__file__).parent / "peers"
sys.path.insert(0, str(PEERS))

import process  # noqa: E402 - stands in the folder just added
from install import interpreter  # noqa: E402
from tools import TOOLS  # noqa: E402

INFERENCE = """
import sys, numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
x = np.load(sys.argv[2])["x"]
for start in range(0, len(x), 8):
    session.run(None, {"x": x[start : start + 8]})
"""


@dataclass(frozen=True)
class Case:
    """One network, and the data for it.

    Attributes:
        network: a row of `networks.NETWORKS`.
        side: of the images, in pixels.
        samples: how many there are.
        width, depth: of the network; None for its usual ones.
    """

    network: str
    side: int
    samples: int
    width: int | None = None
    depth: int | None = None

    def model(self) -> onnx.ModelProto:
        sizes = {"width": self.width, "depth": self.depth}
        given = {name: value for name, value in sizes.items() if value is not None}
        return NETWORKS[self.network](self.side, **given)


AXES: Mapping[str, Callable[[str], list[Case]]] = MappingProxyType({
    "weights": lambda name: [Case(name, 64, 16, width=w) for w in WIDTHS[name]],
    "resolution": lambda name: [Case(name, s, 8, width=WIDTHS[name][0]) for s in (64, 128, 256)],
    "samples": lambda name: [Case(name, 64, n, width=WIDTHS[name][0]) for n in (32, 128, 512)],
    "layers": lambda name: [Case(name, 64, 16, WIDTHS[name][0], n) for n in DEPTHS[name]],
    "usual": lambda name: [Case(name, 224 if name == "transformer" else 256, 16)],
})  # fmt: skip
"""What grows, by name: a network at several sizes; `usual` is the one that people deploy."""

WIDTHS = MappingProxyType({
    "resnet": (16, 32, 64), "transformer": (192, 384, 768), "detector": (16, 32, 64),
    "unet": (16, 32, 64),
})  # fmt: skip

DEPTHS = MappingProxyType({
    "resnet": (1, 2, 4), "transformer": (3, 6, 12), "detector": (1, 2, 4), "unet": (2, 3, 4),
})  # fmt: skip

GROWS: Mapping[str, Callable[[Case, int], float]] = MappingProxyType({
    "weights": lambda _, weights: weights,
    "resolution": lambda case, _: case.side**2,
    "samples": lambda case, _: case.samples,
    "layers": lambda case, _: case.depth or 1,
    "usual": lambda _, weights: weights,
})  # fmt: skip
"""What an exponent is taken over."""

ONNXQ = (sys.executable, "-m", "onnxq")

READ_INT8 = frozenset({"validate", "validate --layers", "emulate"})
"""Commands that read what `quantize` wrote."""


@dataclass(frozen=True)
class Place:
    """Files of one case."""

    model: Path
    data: Path
    int8: Path

    def commands(self, target: str) -> dict[str, tuple[str, ...]]:
        """What is measured, in an order in which each finds what it reads."""
        model, data, int8 = str(self.model), str(self.data), str(self.int8)
        work = self.model.parent
        made = ("--target", target, "--data", data)
        plain = ("--rounding", "nearest", "--no-bias-correction", "--ranges", "minmax")
        return {
            "inference": (sys.executable, "-c", INFERENCE, model, data),
            "calibrate": (*ONNXQ, "calibrate", model, "--data", data, "-o", str(work / "m.calib")),
            "equalize": (*ONNXQ, "equalize", model, "--data", data, "-o", str(work / "e.onnx")),
            "quantize, nearest": (*ONNXQ, "quantize", model, *made, *plain, "--no-equalize",
                                  "-o", str(work / "nearest.onnx")),
            "quantize": (*ONNXQ, "quantize", model, *made, "-o", int8),
            "validate": (*ONNXQ, "validate", model, int8, "--data", data),
            "validate --layers": (*ONNXQ, "validate", model, int8, "--data", data, "--layers"),
            "emulate": (*ONNXQ, "emulate", int8, "--data", data, "-o", str(work / "y.npz")),
        }  # fmt: skip


def peer_commands(
    names: Sequence[str], place: Place, cache: Path
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The plainest and the best mode of each peer that does not learn its rounding."""
    for tool in TOOLS:
        if tool.name not in names or tool.driver is None:
            continue
        python = interpreter(tool, cache)
        modes = [mode for mode in tool.modes if not mode.slow and mode.weights == "per channel"]
        for mode in modes:
            output = place.model.parent / f"{tool.name}.onnx"
            yield (
                f"{tool.name}, {mode.name}",
                (str(python), str(PEERS / "drivers" / tool.driver), str(place.model),
                 str(place.data), str(output), json.dumps(mode.settings)),
            )  # fmt: skip


def write(case: Case, place: Place) -> int:
    """Write the model and its data; how many weights it has."""
    model = case.model()
    onnx.save(model, place.model)
    shape = (case.samples, 3, case.side, case.side)
    np.savez(place.data, x=np.random.default_rng(0).standard_normal(shape, np.float32))
    return sum(math.prod(each.dims) for each in model.graph.initializer)


def measure(case: Case, options: argparse.Namespace) -> tuple[int, dict[str, process.Cost | str]]:
    """Weights of the case, and what each command took, or why it did not end well."""
    found: dict[str, process.Cost | str] = {}
    with tempfile.TemporaryDirectory(prefix="scale.") as folder:
        work = Path(folder)
        place = Place(work / "m.onnx", work / "data.npz", work / "int8.onnx")
        # What this process holds would count as the peak memory of all that it starts.
        with ProcessPoolExecutor(1, get_context("spawn")) as other:
            weights = other.submit(write, case, place).result()
        asked = {"inference", *options.command}
        asked |= {"quantize"} if asked & READ_INT8 else set()
        chosen = {n: words for n, words in place.commands(options.target).items() if n in asked}
        chosen |= dict(peer_commands(options.peers, place, options.cache))
        for name, words in chosen.items():
            try:
                found[name] = process.run(words, limit=options.limit, folder=work)
            except process.Failed as failure:
                found[name] = str(failure)
            print(_row(case, weights, name, found), flush=True)
    return weights, found


def _row(case: Case, weights: int, name: str, found: Mapping[str, process.Cost | str]) -> str:
    cost, plain = found[name], found["inference"]
    what = f"{case.network} {weights / 1e6:.1f} M, {case.samples} × {case.side} px, {name}"
    if isinstance(cost, str):
        return f"{what:<64} {cost}"
    ratio = "" if isinstance(plain, str) else f"{cost.cpu_seconds / plain.cpu_seconds:6.1f} ×"
    return (
        f"{what:<64} {cost.cpu_seconds:7.1f} s CPU {cost.seconds:7.1f} s "
        f"{cost.megabytes / 1024:5.2f} GB {ratio}"
    )


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The slope of log time over log size, of the two largest: start-up hides it in small ones."""
    return math.log(seconds[-1] / seconds[-2]) / math.log(sizes[-1] / sizes[-2])


def growth(axis: str, cases: Sequence[Case], options: argparse.Namespace) -> Iterator[str]:
    """Measure the cases; how the time of each command grows."""
    measured = [measure(case, options) for case in cases]
    sizes = [GROWS[axis](case, weights) for case, (weights, _) in zip(cases, measured, strict=True)]
    for name in measured[0][1]:
        costs = [found[name] for _, found in measured]
        seconds = [each.cpu_seconds for each in costs if isinstance(each, process.Cost)]
        if len(seconds) == len(sizes) > 1:
            grown = exponent(sizes, seconds)
            yield f"{cases[0].network}, {axis}, {name}: CPU time grows with the power {grown:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usual = list(Place(Path(), Path(), Path()).commands("cpu"))
    parser.add_argument("--axis", action="append", choices=list(AXES))
    parser.add_argument("--network", action="append", choices=list(NETWORKS))
    parser.add_argument("--command", action="append", choices=usual, help="all by default")
    parser.add_argument("--peers", action="append", default=[], choices=[t.name for t in TOOLS])
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--limit", type=float, default=1800, metavar="S", help="seconds a command")
    parser.add_argument("--quick", action="store_true", help="a small size of each, to try it")
    parser.add_argument(
        "--cache", type=Path, default=Path.home() / ".cache" / "onnxq-peers", metavar="FOLDER"
    )
    options = parser.parse_args()
    options.command = options.command or usual
    for axis in options.axis or list(AXES):
        for name in options.network or list(NETWORKS):
            cases = AXES[axis](name)
            if options.quick:
                cases = [replace(case, side=32, samples=8, width=WIDTHS[name][0], depth=1)
                         for case in cases[:1]]  # fmt: skip
            for line in growth(axis, cases, options):
                print(line, flush=True)


if __name__ == "__main__":
    main()
