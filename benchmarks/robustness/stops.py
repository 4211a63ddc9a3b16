"""Stopped at any moment as whole programs: one line, the exit code, no file and no process left.

    python benchmarks/robustness/stops.py --stops 200 --json stops.json

`faults.py` stops what a command does in a process that has imported everything. Here each is a
program of its own, in a process group of its own, stopped at a random moment: in its imports, at
work, on its way out. By SIGTERM to the process that was started,
as schedulers do, or by Ctrl-C or SIGTERM to the whole group, as terminals and `timeout` do.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from faults import write_inputs
from scoreboard import Outcome, arguments, publish, report_progress

COMMANDS = {
    "calibrate": ("calibrate", "{in}/m.onnx", "--data", "random:1000000", "-o", "{out}"),
    "quantize": ("quantize", "{in}/m.onnx", "--data", "random:4096", "-o", "{out}"),
    "validate": ("validate", "{in}/m.onnx", "{in}/q.onnx", "--data", "random:200000",
                 "--junit", "{out}"),
}  # fmt: skip
OUTPUT = "output"

EARLIEST, LATEST = 0.3, 2.0
"""Seconds after the start. Before the first, the interpreter itself answers."""

PATIENCE = 60
"""Seconds until a stopped command counts as hanging."""

FOREIGN = re.compile(r"\.ses|[a-z0-9_]{8}")
"""What others leave among temporary files: ONNX Runtime, and Python, trying whether it may."""


def stopped(
    tool: str, number: int, chance: random.Random, inputs: Path, whole: dict[str, bytes]
) -> Outcome:
    """Start one command, stop it, and look at what is left.

    Args:
        whole: the output of each command that may be done before it is stopped.
    """
    after, by = chance.uniform(EARLIEST, LATEST), chance.choice((signal.SIGINT, signal.SIGTERM))
    whole_group = by == signal.SIGINT or chance.random() < 0.5
    with tempfile.TemporaryDirectory(prefix="onnxq-stops.") as name:
        folder = Path(name)
        with subprocess.Popen(
            _command(tool, inputs, folder), stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": name},
            start_new_session=True, **_hears(),
        ) as started:  # fmt: skip
            time.sleep(after)
            others = psutil.Process(started.pid).children(recursive=True)
            (os.killpg if whole_group else os.kill)(started.pid, by)
            try:
                _, said = started.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(started.pid, signal.SIGKILL)
                kind, detail = "hang", ""
            else:
                kind, detail = _judged(
                    started.returncode, by, said, others, folder, whole.get(tool)
                )
    to = "the group" if whole_group else "the process"
    case = f"{number}: {by.name} to {to} after {after:.3f} s"
    return Outcome(case, f"onnxq {tool}", kind, detail)


def _command(tool: str, inputs: Path, folder: Path) -> list[str]:
    words = (w.format(**{"in": inputs, "out": folder / OUTPUT}) for w in COMMANDS[tool])
    return [sys.executable, "-m", "onnxq", *words]


def _hears() -> dict[str, object]:
    # What runs in the background of a script is born deaf to SIGINT, and its children with it.
    return {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}


def _judged(
    code: int, by: signal.Signals, said: str, others: list[psutil.Process], folder: Path,
    whole: bytes | None,
) -> tuple[str, str]:  # fmt: skip
    """Kind and detail. Before its first line and after its last a program dies of the signal."""
    left = [path for path in folder.iterdir() if not FOREIGN.fullmatch(path.name)]
    if "Traceback" in said:
        return "traceback", said
    if code not in {0, 128 + by, -by}:
        return "crash", f"exit code {code}: {said}"
    if [path for path in left if path.name != OUTPUT or path.read_bytes() != whole]:
        return "partial", f"left {[path.name for path in left]}"
    if psutil.wait_procs(others, timeout=10)[1]:
        return "leak", "a process goes on"
    return "right", f"exit code {code}"


def _output(tool: str, inputs: Path) -> bytes:
    """What a command writes that nobody stops."""
    subprocess.run(_command(tool, inputs, inputs), check=True, capture_output=True)
    return (inputs / OUTPUT).read_bytes()


def main() -> int:
    options = arguments(__doc__ or "", stops=200, seed=0).parse_args()
    chance = random.Random(options.seed)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="onnxq-stops.") as name:
        inputs = Path(name)
        write_inputs(inputs)
        # The others take longer than they are given.
        whole = {"quantize": _output("quantize", inputs)}
        for tool in COMMANDS:
            for number in range(options.stops):
                outcomes.append(stopped(tool, number, chance, inputs, whole))
                report_progress(number + 1, options.stops)
    return publish("Stops", outcomes, json_file=options.json, stops_of_each_command=options.stops)


if __name__ == "__main__":
    sys.exit(main())
