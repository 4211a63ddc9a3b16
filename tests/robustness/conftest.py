"""A folder with a small real network and data for it, as the tests of the command line have."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from support.cli_case import CLASSES, SIDE, Case, network


@pytest.fixture
def case(tmp_path: Path) -> Case:
    onnx.save(network(), tmp_path / "tiny.onnx")
    x = np.random.default_rng(1).standard_normal((24, 3, SIDE, SIDE)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, labels=np.arange(24) % CLASSES)
    return Case(tmp_path, tmp_path / "tiny.onnx", tmp_path / "data.npz", tmp_path / "images")
