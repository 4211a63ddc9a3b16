"""Killed, interrupted, out of disk, raced: every output is the old one or the new one, never a mix.

    python benchmarks/robustness/faults.py --kills 200 --json faults.json

Commands run in forked children of a process that has imported everything, so that a kill hits the
work and not the imports. Half the kills come at a random moment of the command's usual duration,
the others within 3 ms after a new file appears beside the output, where a mix would be born. The
same input gives the same bytes, so what is found afterwards is compared byte for byte.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxq.api
import onnxq.cli.group
import onnxruntime  # noqa: F401 - before the forks
from onnx import TensorProto, helper, numpy_helper
from scoreboard import Outcome, arguments, publish, report_progress

USAGE = 2
STOPPED = {signal.SIGINT: (0, 130), signal.SIGTERM: (0, 143, -signal.SIGTERM)}
"""What a command answers to a signal: it was done, stopped, or had not begun."""


@dataclass(frozen=True)
class Command:
    """A command line that writes one file.

    Attributes:
        words: its arguments; `{out}` and `{in}` stand for the output and the folder of the inputs.
        other: words that make another, as valid, output.
    """

    name: str
    words: tuple[str, ...]
    other: tuple[str, ...]
    output: str


COMMANDS = (
    Command("calibrate", ("{in}/m.onnx", "--data", "{in}/x.npz", "-o", "{out}"),
            ("--samples", "8"), "o.calib"),
    Command("equalize", ("{in}/m.onnx", "--data", "{in}/x.npz", "-o", "{out}"),
            ("--scales", "real"), "o.onnx"),
    Command("quantize", ("{in}/m.onnx", "--data", "{in}/x.npz", "-o", "{out}"),
            ("--target", "cpu"), "o.onnx"),
    Command("emulate", ("{in}/q.onnx", "--data", "{in}/x.npz", "-o", "{out}"),
            ("--samples", "8"), "o.npz"),
    Command("merge", ("{in}/1.calib", "{in}/2.calib", "-o", "{out}"), (), "o.calib"),
    Command("report", ("{in}/m.onnx", "{in}/q.onnx", "--data", "{in}/x.npz", "-o", "{out}"),
            ("--samples", "8"), "o.html"),
    Command("validate", ("{in}/m.onnx", "{in}/q.onnx", "--data", "{in}/x.npz", "--max-drop", "50",
                         "--metric", "sqnr", "--junit", "{out}"),
            ("--samples", "8"), "o.xml"),
)  # fmt: skip


def write_inputs(folder: Path) -> None:
    """A small network with weights of some hundred kilobytes, and samples for it."""
    generator = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> TensorProto:
        values = generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array(values.astype(np.float32), name)

    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"], "relu1"),
        node("Conv", ["r1", "w2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        node("Relu", ["c2"], ["r2"], "relu2"),
        node("GlobalAveragePool", ["r2"], ["p"], "pool"),
        node("Flatten", ["p"], ["f"], "flatten"),
        node("Gemm", ["f", "w3"], ["y"], "gemm", transB=1),
    ]
    graph = helper.make_graph(
        nodes, "faults",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])],
        [weight("w1", 32, 3, 3, 3), weight("w2", 96, 32, 3, 3), weight("w3", 10, 96)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "m.onnx")
    x = generator.standard_normal((32, 3, 8, 8)).astype(np.float32)
    np.savez(folder / "x.npz", x=x)
    model_and_data = (str(folder / "m.onnx"), "--data", str(folder / "x.npz"))
    for part in (1, 2):
        shard = ("--shard", f"{part}/2", "-o", str(folder / f"{part}.calib"))
        _must(["calibrate", *model_and_data, *shard])
    _must(["quantize", *model_and_data, "-o", str(folder / "q.onnx")])


# --- running ---------------------------------------------------------------------------------


def start(words: list[str], before: Callable[[], None] = lambda: None) -> int:
    """Run `onnxq` in a fork of this process; its process id."""
    child = os.fork()
    if child:
        return child
    # The child leaves by _exit alone: it must not run what this process does at its end.
    begun = False
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        quiet = os.open(os.devnull, os.O_WRONLY)
        errors = os.environ.get("FAULTS_STDERR")
        os.dup2(quiet, 1)
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if errors else quiet, 2)
        before()
        sys.argv = ["onnxq", *words]
        begun = True
        onnxq.cli.main()
    except SystemExit as done:
        os._exit(done.code if isinstance(done.code, int) else 1)
    except BaseException as error:  # noqa: BLE001
        early = isinstance(error, KeyboardInterrupt) and not begun
        os._exit(130 if early else 99)
    os._exit(98)


def finish(child: int) -> int:
    """The exit code; minus the signal's number for a killed child."""
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _must(words: list[str]) -> float:
    """Seconds that the command took; it must succeed."""
    started = time.monotonic()
    code = finish(start(words))
    if code:
        raise SystemExit(f"onnxq {' '.join(words)}: exit code {code}")
    return time.monotonic() - started


class Bench:
    """One command with its old and its new output, and how long it takes."""

    def __init__(self, command: Command, inputs: Path, folder: Path) -> None:
        self.command, self.folder = command, folder
        self.output = folder / command.output
        self.words = [
            command.name,
            *(w.format(**{"in": inputs, "out": self.output}) for w in command.words),
        ]
        self.old = self._made([*self.words, *command.other])
        started = time.monotonic()
        self.new = self._made(self.words)
        self.seconds = time.monotonic() - started

    def _made(self, words: list[str]) -> bytes:
        _must(words)
        content = self.output.read_bytes()
        self.output.unlink()
        return content

    def reset(self, *, with_old: bool) -> None:
        """The folder as it is before a run: empty, or with the old output."""
        for path in self.folder.iterdir():
            path.unlink()
        if with_old:
            self.output.write_bytes(self.old)

    def fault(self, *, with_old: bool) -> str:
        """What is wrong with the output; "" for old or new."""
        if not self.output.exists():
            return "the old output is gone" if with_old else ""
        content = self.output.read_bytes()
        allowed = {self.new, self.old} if with_old else {self.new}
        if content in allowed or self.same(content):
            return ""
        return f"a mix of {len(content)} bytes"

    def same(self, content: bytes) -> bool:
        """JUnit and HTML tell times; then a whole document of its kind is enough."""
        ends = {"o.html": b"</html>", "o.xml": b"</testsuites>"}
        end = ends.get(self.command.output)
        return end is not None and content.rstrip().endswith(end)

    def leftovers(self) -> list[str]:
        return [p.name for p in self.folder.iterdir() if p != self.output
                and not p.name.endswith(".state")]  # fmt: skip


# --- faults ----------------------------------------------------------------------------------


def killed(bench: Bench, number: int, chance: random.Random, signal_: int) -> Outcome:
    """Kill the command at some moment."""
    with_old = number % 2 == 0
    bench.reset(with_old=with_old)
    child = start(bench.words)
    if number % 4 < 2:
        time.sleep(chance.uniform(0, bench.seconds))
    else:
        _wait_for_new_file(bench, chance.uniform(0, 0.003))
    os.kill(child, signal_)
    code = finish(child)
    fault = bench.fault(with_old=with_old)
    name = f"{signal.Signals(signal_).name} {number}"
    if not fault and signal_ in STOPPED:
        if code not in STOPPED[signal_]:
            fault = f"exit code {code}"
        elif bench.leftovers():
            fault = f"left {bench.leftovers()}"
    kind = "partial" if fault else "right"
    return Outcome(name, f"onnxq {bench.command.name}", kind, fault or f"exit code {code}")


def _wait_for_new_file(bench: Bench, delay: float) -> None:
    # The probe of `require_writable` comes and goes before the work; the temporary file has ".tmp".
    limit = time.monotonic() + bench.seconds
    while time.monotonic() < limit:
        if any(".tmp" in p.name for p in bench.folder.iterdir()):
            break
    time.sleep(delay)


def raced(bench: Bench, number: int) -> Outcome:
    """Two runs write the same output; a reader sees old or new at any time."""
    bench.reset(with_old=True)
    children = [start(bench.words), start([*bench.words, *bench.command.other])]
    fault = ""
    deadline = time.monotonic() + 60
    codes: list[int] = []
    while children and time.monotonic() < deadline:
        fault = fault or bench.fault(with_old=True)
        for child in list(children):
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                children.remove(child)
                codes.append(os.waitstatus_to_exitcode(status))
    fault = fault or bench.fault(with_old=True) or ("" if codes == [0, 0] else f"codes {codes}")
    fault = fault or (f"left {bench.leftovers()}" if bench.leftovers() else "")
    kind = "partial" if fault else "right"
    return Outcome(f"race {number}", f"onnxq {bench.command.name}", kind, fault)


def without_room(bench: Bench, room: int) -> Outcome:
    """No file may grow beyond `room` bytes: a disk that is full to that byte."""
    bench.reset(with_old=True)

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    code = finish(start(bench.words, limit))
    fault = bench.fault(with_old=True)
    if not fault and bench.leftovers():
        fault = f"left {bench.leftovers()}"
    if not fault and code not in {0, USAGE}:
        fault = f"exit code {code}"
    kind = "partial" if fault else "right" if code == 0 else "refused"
    return Outcome(f"file limit {room}", f"onnxq {bench.command.name}", kind, fault)


@contextmanager
def tmpfs(size: int) -> Iterator[Path | None]:
    """A file system of so many bytes; None where this machine does not let us mount one."""
    folder = Path(tempfile.mkdtemp(prefix="onnxq-tmpfs."))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def on_mount(command: Command, inputs: Path) -> list[Outcome]:
    """A really full disk and a really read-only one."""
    outcomes = []
    tool = f"onnxq {command.name}"
    for name, size in (("full disk", 8 << 10), ("read-only", 1 << 20)):
        with tmpfs(size) as mounted:
            if mounted is None:
                continue
            output = mounted / command.output
            output.write_bytes(b"old")
            if name == "full disk":
                _fill(mounted / "filler")
            if name == "read-only":
                subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
            words = [w.format(**{"in": inputs, "out": output}) for w in command.words]
            code = finish(start([command.name, *words]))
            left = sorted(p.name for p in mounted.iterdir() if p.name != "filler")
            fault = "" if output.read_bytes() == b"old" else "the old output is gone"
            fault = fault or ("" if left == [output.name] else f"left {left}")
            fault = fault or ("" if code == USAGE else f"exit code {code}")
            outcomes.append(Outcome(name, tool, "partial" if fault else "refused", fault))
    return outcomes


def _fill(path: Path) -> None:
    """Take what room there is."""
    with path.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(1024))
        except OSError:
            return


def resumed(bench: Bench, number: int, chance: random.Random) -> Outcome:
    """Kill `calibrate` again and again and go on with --resume: the same bytes in the end."""
    bench.reset(with_old=False)

    def often() -> None:
        # The state is written after every span, not every 30 s.
        from onnxq.calibration import checkpoint

        checkpoint.Checkpoint.__init__.__defaults__ = (False, 0.0, 0.0)  # type: ignore[misc]

    kills = 0
    for _ in range(50):
        child = start([*bench.words, "--resume", "--batch-size", "2"], often)
        if kills < 3:
            time.sleep(chance.uniform(0, bench.seconds))
            os.kill(child, signal.SIGKILL)
            kills += 1
        if finish(child) == 0:
            break
    content = bench.output.read_bytes() if bench.output.exists() else b""
    kind = "right" if content == bench.new else "partial"
    # A kill in the middle of writing the state leaves a hidden file, as any kill may.
    names = (p.name for p in bench.folder.iterdir())
    states = [name for name in names if name.endswith(".state") and not name.startswith(".")]
    if kind == "right" and states:
        kind = "partial"
    return Outcome(f"resume {number}", "onnxq calibrate --resume", kind, f"{kills} kills {states}")


def scoreboard(kills: int, interrupts: int, races: int, *, names: set[str] | None = None,
               seed: int = 0) -> list[Outcome]:  # fmt: skip
    """All faults for all commands, or those named."""
    chance = random.Random(seed)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="onnxq-faults.") as name:
        inputs = Path(name) / "in"
        inputs.mkdir()
        write_inputs(inputs)
        for command in COMMANDS:
            if names and command.name not in names:
                continue
            folder = Path(name) / command.name
            folder.mkdir()
            bench = Bench(command, inputs, folder)
            for number in range(kills):
                outcomes.append(killed(bench, number, chance, signal.SIGKILL))
                report_progress(number + 1, kills)
            outcomes += [
                killed(bench, n, chance, signal.SIGTERM if n % 3 == 2 else signal.SIGINT)
                for n in range(interrupts)
            ]
            outcomes += [raced(bench, n) for n in range(races)]
            size = len(bench.new)
            outcomes += [without_room(bench, room) for room in (0, size - 1, size)]
            outcomes += on_mount(command, inputs)
            if command.name == "calibrate":
                # Batches of 2, as the resumed runs have.
                bench.words += ["--batch-size", "2"]
                bench.new = bench._made(bench.words)  # noqa: SLF001
                bench.words = bench.words[:-2]
                outcomes += [resumed(bench, n, chance) for n in range(max(1, kills // 10))]
            shutil.rmtree(folder)
    return outcomes


def main() -> int:
    options = arguments(__doc__ or "", kills=200, interrupts=40, races=10, seed=0).parse_args()
    outcomes = scoreboard(options.kills, options.interrupts, options.races, seed=options.seed)
    return publish(
        "Faults", outcomes, json_file=options.json, kills_of_each_command=options.kills,
        interrupts=options.interrupts, races=options.races,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
