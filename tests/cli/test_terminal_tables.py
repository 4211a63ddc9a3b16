"""Tables on a terminal of 80 columns: nothing is wider, and numbers stay whole."""

import io
import os
import pty
import subprocess
import sys

import pytest
from onnxq.cli import console
from onnxq.report.table import table
from onnxq.targets import SHIPPED

from support.cli_case import Case, run

LONG = "/backbone/stage3/block7/branch2/conv/Conv_quantized_output_0"


class Screen(io.StringIO):
    """A terminal as far as rich can tell."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")


@pytest.mark.usefixtures("narrow")
def test_a_wide_table_folds_names_and_headers_but_no_numbers():
    heads = (
        "Layer | Operator | >Share (%) | >Alone (dB) | >Own error (dB) | >As it stands (dB) | Why"
    )
    rows = [(LONG, "ConvTranspose", "100.0", "-123.4", "1,234.5", "identical", LONG)]
    screen = Screen()
    console.draw(table(heads, rows), screen)
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    for number in ("100.0", "-123.4", "1,234.5", "identical"):
        assert any(number in line for line in lines)
    assert "As it" in screen.getvalue()


@pytest.mark.usefixtures("narrow")
def test_in_a_file_names_stay_whole():
    stream = io.StringIO()
    console.draw(table("A | >B", [(LONG * 2, "1")]), stream)
    assert LONG * 2 in stream.getvalue()


@pytest.mark.slow
def test_every_command_fits_80_columns(quantized: Case):
    calls = [
        ("validate", quantized.model, quantized.out, "--data", quantized.data, "--layers", "-v",
         "--max-drop", "100"),
        ("inspect", quantized.out),
        ("explain", quantized.out, "depthwise"),
        ("equalize", quantized.model, "--data", quantized.data, "-o",
         quantized.folder / "equalized.onnx", "--explain"),
        ("calibrate", quantized.model, "--data", quantized.data),
    ]  # fmt: skip
    for call in calls:
        shown = on_terminal(*map(str, call))
        rule = [line for line in shown if line.startswith("──")]
        assert rule, call[0]
        # Lines of text are the terminal's to break; tables are ours.
        assert max(map(len, rule)) <= 80, call[0]


def on_terminal(*arguments: str) -> list[str]:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "onnxq", *arguments], stdout=follower, stderr=subprocess.DEVNULL,
        env=os.environ | {"TERM": "dumb", "COLUMNS": "80"},
    )  # fmt: skip
    os.close(follower)
    shown = b""
    try:
        while chunk := os.read(leader, 1 << 16):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    os.close(leader)
    assert process.wait() == 0
    return shown.decode().replace("\r", "").splitlines()


# --- completion ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("onnxq qu", {"quantize"}),
        ("onnxq quantize m.onnx --ran", {"--ranges"}),
        ("onnxq quantize m.onnx --target ", {"auto", *SHIPPED}),
    ],
)
def test_the_shell_completes(line: str, wanted: set[str], monkeypatch: pytest.MonkeyPatch):
    words = line.split()
    monkeypatch.setenv("_ONNXQ_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - (0 if line.endswith(" ") else 1)))
    assert {each.partition(",")[2] for each in run().out.splitlines()} == wanted


def test_completion_scripts_are_there(monkeypatch: pytest.MonkeyPatch):
    for shell in ("bash", "zsh", "fish"):
        monkeypatch.setenv("_ONNXQ_COMPLETE", f"{shell}_source")
        if shell == "bash" and not os.path.exists("/bin/bash"):  # noqa: PTH110
            continue
        assert "_ONNXQ_COMPLETE" in run().out
