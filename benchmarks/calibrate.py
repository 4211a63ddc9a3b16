"""What calibration costs on one model: time against plain inference, memory, images a second.

    python benchmarks/calibrate.py MODEL --data IMAGES --preprocess P

Ratios are of times taken in turns within one run, each the best of its repetitions, so that they
hold on a busy machine too. CPU time is that of all threads of the process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
from onnxq import api
from onnxq.calibration import compiled
from onnxq.calibration.stream import Request, calibrate
from onnxq.model.graph import Graph
from onnxq.model.normalize import normalize
from onnxq.model.session import open_session, with_outputs
from onnxq.model.session import run as compute
from steps import run

REPETITIONS = 4


def timed(ways: dict[str, Callable[[], object]]) -> dict[str, tuple[float, float]]:
    """Best wall and CPU seconds of each way, taken in turns."""
    best = dict.fromkeys(ways, (np.inf, np.inf))
    for _ in range(REPETITIONS):
        for name, way in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            way()
            taken = time.perf_counter() - wall, time.process_time() - cpu
            best[name] = min(best[name][0], taken[0]), min(best[name][1], taken[1])
    return best


def ratios(options: argparse.Namespace) -> None:
    model = api.load(options.model)
    source = api.as_source(
        options.data, model, preprocess=options.preprocess, samples=options.samples
    )
    arrays = {
        spec.name: np.concatenate([batch.feeds[spec.name] for batch in source.batches(64)])
        for spec in model.inputs
    }
    memory = api.as_source(arrays, model)
    _ = memory.fingerprint, source.fingerprint
    normalized, _ = normalize(model)
    tensors = api.tensors_to_observe(Graph(normalized))
    names = [name for name in tensors if name not in arrays]
    request = Request(tensors, model.fingerprint)
    plain, exposed = open_session(normalized), open_session(with_outputs(normalized, names))

    def infer(session: object, outputs: list[str] | None, data: api.DataSource) -> None:
        for batch in data.batches(8):
            compute(session, outputs, batch.feeds)

    def histograms() -> None:
        """What a caller of ONNX Runtime and numpy would write: the yardstick of the goal."""
        for batch in memory.batches(8):
            for values in compute(exposed, names, batch.feeds):
                np.histogram(values, 2048)

    def in_numpy(data: api.DataSource) -> None:
        with patch.object(compiled, "loops", return_value=None):
            calibrate(normalized, data, request)

    if compiled.loops() is None:
        print("numba is not installed: no loops are compiled", flush=True)
    found = timed({
        "plain inference": lambda: infer(plain, None, memory),
        "inference, all tensors as outputs": lambda: infer(exposed, names, memory),
        "the same, and numpy.histogram": histograms,
        "calibrate": lambda: calibrate(normalized, memory, request),
        "calibrate, without numba": lambda: in_numpy(memory),
        "plain inference from images": lambda: infer(plain, None, source),
        "calibrate from images": lambda: calibrate(normalized, source, request),
        "calibrate from images, without numba": lambda: in_numpy(source),
    })  # fmt: skip
    bases = dict.fromkeys(found, "plain inference")
    bases |= {name: "plain inference from images" for name in found if "from images" in name}
    print(f"{'':36s} {'s':>7s} {'ratio':>6s} {'CPU s':>7s} {'ratio':>6s} {'samples/s':>10s}")
    for name, (wall, cpu) in found.items():
        base = found[bases[name]]
        print(f"{name:36s} {wall:7.2f} {wall / base[0]:6.2f} {cpu:7.2f} {cpu / base[1]:6.2f} "
              f"{source.count / wall:10.0f}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--preprocess")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--rss", default="100,1000,10000", help="numbers of random samples")
    options = parser.parse_args()
    # Before this process grows: the peak of one that it starts begins with its own.
    with tempfile.TemporaryDirectory() as folder:
        output = ("-q", "-o", str(Path(folder) / "c.calib"))
        for count in filter(None, options.rss.split(",")):
            cost = run("calibrate", options.model, "--data", f"random:{count}", *output)
            print(f"peak memory, {count:>6s} samples {cost.megabytes:8.0f} MB", flush=True)
        images = ("--data", options.data)
        images += ("--preprocess", options.preprocess) if options.preprocess else ()
        taken = min(run("calibrate", options.model, *images, *output).seconds for _ in range(2))
        print(f"all of the images: {taken:.1f} s", flush=True)
    ratios(options)


if __name__ == "__main__":
    main()
