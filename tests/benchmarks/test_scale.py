"""benchmarks/scale.py: one small size of a network, and how growth is told."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


def test_a_row_for_each_command_that_is_asked_for():
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "scale.py", "--quick", "--axis", "weights",
         "--network", "unet", "--command", "calibrate"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = done.stdout.splitlines()
    assert [row.split(",")[2].split()[0] for row in rows] == ["inference", "calibrate"]
    for row in rows:
        assert re.search(r"8 × 32 px, .* s CPU .* s .* GB .* ×$", row)


@pytest.mark.parametrize("name", ["resnet", "transformer", "detector", "unet"])
def test_networks_are_valid_and_grow_with_width(name, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    networks = importlib.import_module("networks")
    sizes = []
    for width in (64, 128) if name == "transformer" else (16, 32):
        model = networks.NETWORKS[name](32, width=width, depth=1)
        onnx.checker.check_model(model, full_check=True)
        sizes.append(len(model.SerializeToString()))
    assert 1.8 < sizes[1] / sizes[0] < 4.1
