"""Many quantizations in one process: memory stays flat, no file descriptor is leaked.

    python benchmarks/robustness/soak.py --runs 1000 --json soak.json

After a warm-up the peak of what is resident may not grow by more than `GROWTH`, from the first to
the last tenth of the runs, and as many descriptors and threads are open at the end as before.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import warnings
from pathlib import Path
from statistics import median

from fuzz import write_inputs
from scoreboard import Outcome, arguments, publish, report_progress

GROWTH = 0.03
"""Share by which resident memory may grow: allocators keep some of what they were given."""

VARIANTS = ({}, {"target": "cpu"}, {"weights": "per-tensor"}, {"equalize": False})


def resident() -> int:
    """Bytes of this process that lie in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def main() -> int:
    options = arguments(__doc__ or "", runs=1000, warm_up=500).parse_args()
    warnings.simplefilter("ignore")
    import onnxq

    memory: list[int] = []
    with tempfile.TemporaryDirectory(prefix="onnxq-soak.") as name:
        folder = Path(name)
        write_inputs(folder)
        for run in range(options.warm_up + options.runs):
            if run == options.warm_up:
                gc.collect()
                before = descriptors(), threads()
            model = onnxq.load(folder / "m.onnx")
            variant = VARIANTS[run % len(VARIANTS)]
            quantized, _ = onnxq.quantize(model, str(folder / "x.npz"), **variant)
            onnxq.api.save(quantized, folder / "out.onnx")
            onnxq.emulate(quantized, str(folder / "x.npz"))
            if run >= options.warm_up:
                memory.append(resident())
            report_progress(run + 1, options.warm_up + options.runs, every=100)
        del model, quantized
        gc.collect()
        after = descriptors(), threads()
    tenth = max(1, len(memory) // 10)
    first, last = median(memory[:tenth]), median(memory[-tenth:])
    growth = last / first - 1
    outcomes = [
        Outcome("resident memory", "onnxq quantize", "right" if growth <= GROWTH else "leak",
                f"{first / 2**20:.1f} MiB at first, {last / 2**20:.1f} MiB at last"),
        Outcome("descriptors and threads", "onnxq quantize",
                "right" if after[0] <= before[0] and after[1] <= before[1] else "leak",
                f"{before} before, {after} after"),
    ]  # fmt: skip
    return publish(
        "Soak", outcomes, json_file=options.json, runs=options.runs,
        memory=outcomes[0].detail, growth=f"{growth:+.2%}",
        descriptors_and_threads=outcomes[1].detail,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
