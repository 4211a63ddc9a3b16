"""Killed, interrupted, out of disk, raced: the old output or the new one, never a mix.

A few of what `benchmarks/robustness/faults.py` does 200 times, by the same code.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from onnxq.model import external, files

from equalization.graphs import Builder

ROBUSTNESS = Path(__file__).parents[2] / "benchmarks" / "robustness"


def test_faults_of_the_commands(tmp_path):
    """In a process of its own, which forks: threads of other tests have no place in it."""
    results = tmp_path / "faults.json"
    command = [sys.executable, ROBUSTNESS / "faults.py", "--kills", "2", "--interrupts", "1",
               "--races", "1", "--json", results]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = json.loads(results.read_text())["outcomes"]
    tools = {outcome["tool"] for outcome in outcomes}
    assert {"onnxq quantize", "onnxq calibrate --resume", "onnxq report"} <= tools
    assert all(outcome["kind"] in {"right", "refused"} for outcome in outcomes)
    assert sum(outcome["case"].startswith("kill") for outcome in outcomes) == 2 * 7


@pytest.fixture
def large(monkeypatch):
    """Every model needs a data file of its own."""
    monkeypatch.setattr(external, "INLINE_LIMIT", 1)
    monkeypatch.setattr(external, "SMALL", 1)


def model(seed):
    b = Builder(seed)
    return b.model(b.head(b.conv(b.input(3, 4, 4), 4, name="conv")))


@pytest.mark.usefixtures("large")
def test_the_data_of_another_run_are_left_alone(tmp_path, monkeypatch):
    """Two runs write one model: what the first has put there for its model the second keeps."""
    path = tmp_path / "m.onnx"
    files.save(model(0), path)
    opened, second = files.open_session, []

    def while_the_first_writes(*args, **kwargs):
        if not second:
            second.append(True)
            files.save(model(2), path)
        return opened(*args, **kwargs)

    monkeypatch.setattr(files, "open_session", while_the_first_writes)
    files.save(model(1), path)
    expected = {t.name: t.raw_data for t in model(1).proto.graph.initializer}
    assert {t.name: t.raw_data for t in files.load(path).proto.graph.initializer} == expected
