"""A folder with a small real network, arrays and images for it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from support.cli_case import CLASSES, SIDE, Case, network, run


@pytest.fixture
def case(tmp_path: Path) -> Case:
    generator = np.random.default_rng(1)
    onnx.save(network(), tmp_path / "tiny.onnx")
    x = generator.standard_normal((24, 3, SIDE, SIDE)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, labels=np.arange(24) % CLASSES)
    for number in range(6):
        folder = tmp_path / "images" / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return Case(tmp_path, tmp_path / "tiny.onnx", tmp_path / "data.npz", tmp_path / "images")


@pytest.fixture
def calibrated(case: Case) -> Case:
    """The same, calibrated."""
    assert run("calibrate", case.model, "--data", case.data, "-o", case.calib).code == 0
    return case


@pytest.fixture
def quantized(case: Case) -> Case:
    """The same, quantized."""
    assert run("quantize", case.model, "--data", case.data, "-o", case.out).code == 0
    return case
