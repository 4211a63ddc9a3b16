"""The command line as a process: help, streams, exit codes of what goes wrong on the way."""

import contextlib
import errno
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import onnxq
import pytest
from onnxq.cli.group import COMMANDS

from support.cli_case import Case, run

PYTHON = sys.executable
FULL = Path("/dev/full")
HEARS: dict[str, Any] = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
"""A test run in the background of a script is born deaf to SIGINT, and its children with it."""


def process(*args: object, **settings) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PYTHON, "-m", "onnxq", *map(str, args)],
        capture_output="stdout" not in settings,
        text=True,
        check=False,
        **settings,
    )


# --- help ------------------------------------------------------------------------------------


def test_help_lists_every_command():
    result = run("--help")
    assert result.code == 0
    for command in COMMANDS:
        assert f"  {command} " in result.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_the_common_options(command: str):
    result = run(command, "--help")
    assert result.code == 0
    for option in ("--json", "--verbose", "--quiet"):
        assert option in result.out


def test_version():
    assert run("--version").out == f"onnxq {onnxq.__version__}\n"


def test_without_arguments_it_helps():
    result = run()
    assert result.code == 2
    assert result.out.startswith("Usage: onnxq")


def test_help_imports_no_heavy_module():
    code = (
        "import sys, onnxq.cli\n"
        "sys.argv = ['onnxq', '--help']\n"
        "try: onnxq.cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'onnx', 'onnxruntime', 'rich', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([PYTHON, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("quantize",)),
        (("bench",), ("─ Data ─", "─ Machine ─", "─ Output ─", "--help", "Examples:\r\n")),
    ],
)
def test_help_on_a_terminal_is_rich(arguments: tuple[str, ...], words: tuple[str, ...]):
    leader, follower = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    code = subprocess.run(
        [PYTHON, "-m", "onnxq", *arguments, "--help"], stdout=follower, check=False, env=environment
    ).returncode
    os.close(follower)
    written = b""
    with contextlib.suppress(OSError):  # at the end, as nobody writes any more
        while chunk := os.read(leader, 1 << 16):
            written += chunk
    os.close(leader)
    shown = re.sub(r"\x1b\[[0-9;]*m| +(?=\r)", "", written.decode())
    assert code == 0
    assert "╭─" in shown
    assert "─ Options ─" not in shown or not arguments
    for each in words:
        assert each in shown


# --- streams ---------------------------------------------------------------------------------


def test_json_leaves_stdout_clean(case: Case):
    result = process("quantize", case.model, "--data", case.data, "-o", case.out, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["schema"] == "onnxq/quantize"
    assert "Left in float" in result.stderr


def test_quiet_says_only_the_result(case: Case):
    result = run("quantize", case.model, "--data", case.data, "-o", case.out, "--quiet")
    assert result.out.startswith("target gpu")
    assert result.err == ""
    assert run("inspect", case.out, "--quiet", "--json").err == ""


def test_a_refusal_in_a_real_process(case: Case):
    case.model.write_bytes(b"nonsense")
    result = process("inspect", case.model)
    assert result.returncode == 3
    assert result.stderr.count("\n") == 1


def test_names_are_whole_in_a_pipe_and_markup_is_text(case: Case):
    """A long name of two columns, which also looks like rich's markup."""
    name = "/features/[bold]" + "deep/" * 15 + "conv1"
    model = onnx.load(case.model)
    model.graph.node[0].name = name
    onnx.save(model, case.model)
    assert f"{name}_Weights" in run("calibrate", case.model, "--data", case.data).out


def test_terminal_without_unicode(case: Case):
    assert run("quantize", case.model, "--data", case.data, "-o", case.out).code == 0
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    result = process("inspect", case.out, env=environment)
    assert result.returncode == 0
    assert "int8 8?3?3?3" in result.stdout


def test_reader_that_goes_away(case: Case):
    reading, writing = os.pipe()
    os.close(reading)
    result = process("calibrate", case.model, "--data", case.data, stdout=writing,
                     stderr=subprocess.PIPE)  # fmt: skip
    os.close(writing)
    assert result.returncode == 141
    assert "Traceback" not in result.stderr
    assert "Exception" not in result.stderr


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_stdout_on_a_full_disk(case: Case):
    with FULL.open("w") as full:
        result = process("inspect", case.model, stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "error: no space left for the output (the disk is full: make room)"
    ]


# --- what goes wrong on the way ----------------------------------------------------------------


def raising(error: BaseException):
    def fail(*_args, **_options):
        raise error

    return fail


def test_a_bug_is_exit_5(case: Case, monkeypatch):
    monkeypatch.setattr(
        "onnxq.commands.quantize.quantize", raising(RuntimeError("the impossible\nhappened"))
    )
    arguments = ("quantize", case.model, "--data", case.data, "-o", case.out)
    result = run(*arguments)
    assert result.code == 5
    (line,) = result.err.splitlines()
    assert line.startswith("error: a bug in onnxq: RuntimeError: the impossible happened")
    assert "report" in line
    verbose = run(*arguments, "--verbose")
    assert verbose.code == 5
    assert "Traceback" in verbose.err
    assert not case.out.exists()


def test_interrupted_is_exit_130(case: Case, monkeypatch):
    monkeypatch.setattr("onnxq.commands.quantize.quantize", raising(KeyboardInterrupt()))
    result = run("quantize", case.model, "--data", case.data, "-o", case.out)
    assert (result.code, result.out, result.err) == (130, "", "interrupted\n")


AT_WORK = {
    "in exec": "exec('stop(); time.sleep(60)')",
    "another error comes of it": """
    try:
        stop(); time.sleep(60)
    except KeyboardInterrupt:
        raise ImportError('swallowed') from None""",
    "dropped by the code": """
    try:
        stop(); time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(60)""",
    "dropped by Python": """
    class Late:
        def __del__(self):
            stop(); time.sleep(60)
    Late()
    time.sleep(60)""",
    "on the way out, waiting for a lock": """
    try:
        stop(); time.sleep(60)
    finally:
        locked.acquire()""",
    "a thread waits for a lock": """
    ThreadPoolExecutor(1).submit(locked.acquire)
    stop(); time.sleep(60)""",
}


@pytest.mark.parametrize("at_work", AT_WORK.values(), ids=AT_WORK)
@pytest.mark.parametrize(
    ("name", "code", "said"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")]
)
def test_stopped_in_a_real_process(case: Case, name: str, code: int, said: str, at_work: str):
    """The user's metric sends the signal, so that it comes while the models run.

    It ends the command, at once or within seconds, wherever it meets it.
    """
    (case.folder / "mine.py").write_text(
        "import os, signal, threading, time\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "locked = threading.Lock()\n"
        "locked.acquire()\n"
        "def stop():\n"
        f"    os.kill(os.getpid(), signal.{name})\n"
        f"def score(*_):\n    {at_work}\n"
    )
    metric = f"{case.folder / 'mine.py'}:score"
    arguments = ("validate", case.model, "--data", case.data, "--metric", metric)
    result = process(*arguments, timeout=30, **HEARS)
    assert result.returncode == code
    assert result.stderr == f"{said}\n"


def assert_terminated(case: Case) -> None:
    """A command whose metric stands in mine.py ends as one that SIGTERM stopped."""
    metric = f"{case.folder / 'mine.py'}:score"
    arguments = ("validate", case.model, "--data", case.data, "--metric", metric)
    result = process(*arguments, timeout=30)
    assert (result.returncode, result.stderr) == (143, "terminated\n")


def test_a_stop_waits_for_an_import(case: Case):
    """Compiled modules whose imports were cut have crashed the interpreter."""
    (case.folder / "mine.py").write_text(
        "import os, signal, time\n"
        "from pathlib import Path\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "time.sleep(0.5)\n"
        "Path(__file__).with_name('imported').touch()\n"
        "def score(*_):\n    time.sleep(60)\n"
    )
    assert_terminated(case)
    assert (case.folder / "imported").exists()


def test_a_stop_waits_for_the_compiler(case: Case):
    """Numba's compiler that was cut has freed what it had handed over a second time."""
    pytest.importorskip("numba")
    (case.folder / "mine.py").write_text(
        "import os, signal, time\n"
        "from pathlib import Path\n"
        "import numba, numba.extending\n"
        "@numba.extending.overload(len)\n"
        "def stopped(value):\n"
        "    if isinstance(value, numba.types.Integer):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(0.5)\n"
        "        Path(__file__).with_name('compiled').touch()\n"
        "        return lambda value: 1\n"
        "def score(*_):\n"
        "    numba.njit(lambda: len(3))()\n"
        "    time.sleep(60)\n"
    )
    assert_terminated(case)
    assert (case.folder / "compiled").exists()


def test_a_stop_waits_until_a_temporary_folder_is_remembered(case: Case):
    """One that came between its making and that left it, once in some hundred stops."""
    (case.folder / "mine.py").write_text(
        "import os, signal, tempfile, time\n"
        "from pathlib import Path\n"
        "make = tempfile.mkdtemp\n"
        "def stopped(*arguments):\n"
        "    made = make(*arguments)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(0.2)\n"
        "    return made\n"
        "def score(*_):\n"
        "    tempfile.mkdtemp = stopped\n"
        "    here = Path(__file__).parent\n"
        "    with tempfile.TemporaryDirectory(prefix='onnxq.', dir=here) as folder:\n"
        "        (here / 'made').write_text(folder)\n"
        "        time.sleep(60)\n"
    )
    assert_terminated(case)
    made = Path((case.folder / "made").read_text())
    assert made.parent == case.folder
    assert not made.exists()


def test_full_disk_is_one_line(case: Case, monkeypatch):
    before = case.files()
    error = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr("pathlib.Path.write_bytes", raising(error))
    result = run("quantize", case.model, "--data", case.data, "-o", case.out)
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert str(case.out) in line
    assert "No space left" in line
    assert case.files() == before


def test_progress_on_a_terminal_only(case: Case):
    leader, follower = pty.openpty()
    arguments = ("calibrate", str(case.model), "--data", str(case.data), "-o", str(case.calib))
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    done = subprocess.run(
        [PYTHON, "-m", "onnxq", *arguments], stdout=subprocess.PIPE, stderr=follower, check=False,
        env=environment,
    )  # fmt: skip
    os.close(follower)
    shown = os.read(leader, 1 << 16).decode()
    os.close(leader)
    assert done.returncode == 0
    assert "24/24" in shown
    assert "24/24" not in process(*arguments).stderr
