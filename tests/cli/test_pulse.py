"""What a command tells of itself where no terminal shows a bar."""

import time

import pytest
from onnxq.cli import pulse
from onnxq.cli.pulse import Pulse
from onnxq.cli.terminal import Terminal


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(pulse, "PERIOD", 0.02)


def test_silent_work_is_told_of_from_time_to_time(quick, capsys):
    terminal = Terminal()
    with terminal.alive("quantize"), terminal.progress.track("quantize", None):
        time.sleep(0.2)
        with terminal.progress.track("settle layers", 9) as advance:
            advance(3)
            time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "quantize, 0 s so far"
    assert lines[-1].startswith("quantize: settle layers 3/9, ")
    assert len(lines) >= 3
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_what_is_short_or_quiet_says_nothing(quick, capsys, monkeypatch):
    with Terminal(quiet=True).alive("quantize"):
        time.sleep(0.1)
    monkeypatch.setattr(pulse, "PERIOD", 30.0)
    with Terminal().alive("quantize"):
        pass
    assert capsys.readouterr().err == ""


def test_the_innermost_work_is_named():
    lives = Pulse()
    assert lives.line("validate", 31.2) == "validate, 31 s so far"
    with lives.track("validate", 2000) as advance, lives.track("layers", None):
        advance(8)
        assert lives.line("validate", 60) == "validate: layers, 60 s so far"
    with lives.track("validate", 2000) as advance:
        advance(1008)
        assert lives.line("validate", 90) == "validate 1,008/2,000, 90 s so far"


def test_a_copy_with_json_tells_of_the_same_work():
    terminal = Terminal()
    assert terminal.with_json(asked=True).progress is terminal.progress
