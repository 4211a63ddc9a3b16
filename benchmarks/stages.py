"""Where the CPU time of a command goes: seconds of each stage, without what it calls.

    python benchmarks/stages.py quantize MODEL --data DATA -o OUT.onnx

The arguments are those of `onnxq`. CPU time (user and system) is that of all threads of the
process while a stage runs; "trials" are the hasty models that scales are tried in. The table goes
to stderr.
"""

from __future__ import annotations

import importlib
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

QUANTIZE, STAGE = "onnxq.commands.quantize", "onnxq.quantization.quantize"
WAYS, FINISH = "onnxq.quantization.ways", "onnxq.quantization.finish"
SETTLE = "onnxq.quantization.sequential"
STAGES = (
    (QUANTIZE, "observe", "calibration"),
    (QUANTIZE, "normalized_on", "normalize"),
    (QUANTIZE, "take_samples", "take samples"),
    (QUANTIZE, "costliest", "name the worst layers"),
    (QUANTIZE, "account_for", "size and speed"),
    (QUANTIZE, "_with_scales_judged", "judge scales"),
    (STAGE, "choose_scales", "choose scales"),
    (WAYS, "measured", "measure scales"),
    (WAYS, "scaled", "equalize, prove"),
    (WAYS, "centered", "center"),
    (WAYS, "_tried", "trials"),
    (FINISH, "plan_quantization", "plan"),
    (FINISH, "measure_costs", "gradients"),
    (FINISH, "weigh", "weigh ranges"),
    (FINISH, "_narrowed", "try narrower ranges"),
    (FINISH, "insert", "insert"),
    (FINISH, "run_reference", "float outputs"),
    (STAGE, "closeness_of", "measure outputs"),
    (WAYS, "closeness_of", "measure outputs"),
    (FINISH, "closeness_of", "measure outputs"),
    (WAYS, "insert", "insert"),
    (FINISH, "settle_layers", "settle layers: the rest"),
    (SETTLE, "insert", "insert"),
    (SETTLE, "collect_moments", "settle layers: moments"),
    (SETTLE, "round_weight", "settle layers: refit"),
    (SETTLE, "measure_shift", "settle layers: biases"),
    ("onnxq.quantization.rounding", "round_in_order", "settle layers: round"),
    ("onnxq.quantization.rounding", "best_strength", "settle layers: strength"),
    ("onnxq.quantization.segments", "SegmentRunner.compute", "settle layers: run"),
)  # fmt: skip
"""Module, name in it, and what the table calls it."""

WITHIN = "trials"
"""The stage under which others count by themselves."""


@dataclass
class Row:
    calls: int = 0
    cpu: float = 0.0
    wall: float = 0.0


@dataclass
class Clock:
    """Takes the time of stages within each other."""

    rows: dict[str, Row] = field(default_factory=dict)
    open: list[tuple[str, Row]] = field(default_factory=list)

    def timed(self, work: Callable[..., Any], label: str) -> Callable[..., Any]:
        """The function, timed where the main thread calls it."""

        def inner(*args: Any, **options: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                return work(*args, **options)
            cpu, wall = time.process_time(), time.perf_counter()
            within = Row()
            self.open.append((label, within))
            try:
                return work(*args, **options)
            finally:
                self.open.pop()
                cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
                tried = any(name == WITHIN for name, _ in self.open)
                row = self.rows.setdefault(f"{WITHIN}: {label}" if tried else label, Row())
                row.calls += 1
                row.cpu += cpu - within.cpu
                row.wall += wall - within.wall
                if self.open:
                    self.open[-1][1].cpu += cpu
                    self.open[-1][1].wall += wall

        return inner

    def table(self) -> str:
        total = time.process_time()
        lines = [f"{'stage':34}{'calls':>7}{'CPU s':>9}{'wall s':>9}{'%':>6}"]
        for name, row in sorted(self.rows.items(), key=lambda pair: -pair[1].cpu):
            share = 100 * row.cpu / total
            lines.append(f"{name:34}{row.calls:7}{row.cpu:9.1f}{row.wall:9.1f}{share:6.1f}")
        return "\n".join([*lines, f"{'the whole process':41}{total:9.1f}"])


def main() -> None:
    clock = Clock()
    for module, path, label in STAGES:
        *outer, name = path.split(".")
        owner: Any = importlib.import_module(module)
        for each in outer:
            owner = getattr(owner, each)
        setattr(owner, name, clock.timed(getattr(owner, name), label))
    from onnxq.cli import main as onnxq

    try:
        onnxq()
    finally:
        print(clock.table(), file=sys.stderr)


if __name__ == "__main__":
    main()
