"""A sample of each scoreboard of `benchmarks/robustness/`, by the same code: onnxq has no fault.

Each runs in a process of its own, because what is looked for may bring it down.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROBUSTNESS = Path(__file__).parents[2] / "benchmarks" / "robustness"
FUZZ = int(os.environ.get("ONNXQ_FUZZ", "300"))
"""Damaged files to try: 300 by default, 2,000 in CI, 100,000 in the slow run."""


def outcomes(tmp_path, script, *options):
    """The outcomes; the script itself fails where one of them is a fault."""
    results = tmp_path / "results.json"
    command = [sys.executable, ROBUSTNESS / script, *map(str, options), "--json", results]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(results.read_text())["outcomes"]


def kinds(found, tool):
    return Counter(outcome["kind"] for outcome in found if outcome["tool"] == tool)


def test_node_tests_of_onnx(tmp_path):
    found = outcomes(tmp_path, "nodes.py", "--every", 61, "--peers", 0)
    for tool in ("onnxq equalize", "onnxq quantize --target gpu", "onnxq quantize --target cpu"):
        assert kinds(found, tool)["right"] > 20


def test_damaged_files(tmp_path):
    found = outcomes(tmp_path, "fuzz.py", "--number", FUZZ)
    assert len(found) == FUZZ
    for kind in ("model", "quantized model", "calibration", "npz", "png", "tar"):
        assert kinds(found, f"onnxq: {kind}").keys() == {"right", "refused"}


@pytest.mark.slow
def test_faults_of_the_commands(tmp_path):
    found = outcomes(tmp_path, "faults.py", "--kills", 1, "--interrupts", 3, "--races", 1)
    tools = {outcome["tool"] for outcome in found}
    assert {"onnxq quantize", "onnxq calibrate --resume", "onnxq report"} <= tools
    names = [outcome["case"].split()[0] for outcome in found]
    assert [names.count(each) for each in ("SIGKILL", "SIGINT", "SIGTERM")] == [7, 2 * 7, 7]


@pytest.mark.slow
def test_stops_of_the_commands(tmp_path):
    found = outcomes(tmp_path, "stops.py", "--stops", 3)
    assert kinds(found, "onnxq calibrate") == {"right": 3}


@pytest.mark.slow
def test_many_runs_in_one_process(tmp_path):
    found = outcomes(tmp_path, "soak.py", "--runs", 20, "--warm-up", 10)
    assert [outcome["kind"] for outcome in found] == ["right", "right"]
