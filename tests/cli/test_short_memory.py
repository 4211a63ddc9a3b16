"""Commands under a limit of address space: they keep to it, or say what to lower."""

import subprocess
import sys

import numpy as np
import onnx
import pytest

from support.builder import Builder

LIMITED = """
import resource, sys
size = int(sys.argv.pop(1))
from onnxq.cli import main
resource.setrlimit(resource.RLIMIT_AS, (size, size))
main()
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="address space is limited there")


def limited(gigabytes, *arguments):
    size = str(int(gigabytes * (1 << 30)))
    command = [sys.executable, "-c", LIMITED, size, *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def denoiser(path, *, layers, channels):
    """It keeps full resolution: each of its activations is as large as several images."""
    b = Builder(0)
    x = b.input(3, 1, 1)
    for _ in range(layers):
        x = b.op("Relu", b.conv(x, channels, 3))
    model = b.model(b.conv(x, 3, 3)).proto
    free = [model.graph.input[0], *model.graph.output]
    del model.graph.value_info[:]
    for info in free:
        for axis, name in zip(info.type.tensor_type.shape.dim[2:], "hw", strict=True):
            axis.dim_param = name
    onnx.save(model, path)


def photographs(path, count, side):
    images = np.random.default_rng(0).random((count, 3, side, side), np.float32)
    np.savez(path, x=images)


@pytest.mark.slow
def test_a_denoiser_of_large_images_within_two_gigabytes(tmp_path):
    """Of eight images each of its thirteen activations takes 50 MB; half of it is Python's and
    ONNX Runtime's own."""
    model, data, out = (tmp_path / name for name in ("m.onnx", "data.npz", "int8.onnx"))
    denoiser(model, layers=6, channels=24)
    photographs(data, 8, 256)
    found = limited(2, "quantize", model, "--data", data, "-o", out)
    assert found.returncode == 0, found.stderr
    verdict = limited(1.6, "validate", model, out, "--data", data, "--layers")
    assert verdict.returncode == 0, verdict.stderr
    emulated = limited(1.4, "emulate", out, "--data", data, "-o", tmp_path / "y.npz")
    assert emulated.returncode == 0, emulated.stderr


@pytest.mark.slow
def test_large_images_behind_a_small_one_within_four_gigabytes(tmp_path):
    """The first image says nothing of those that follow."""
    model, data, out = (tmp_path / name for name in ("m.onnx", "data", "c.calib"))
    denoiser(model, layers=12, channels=16)
    data.mkdir()
    photographs(data / "0.npz", 1, 32)
    photographs(data / "1.npz", 8, 512)
    found = limited(4, "calibrate", model, "--data", data, "-o", out)
    assert found.returncode == 0, found.stderr


def test_short_memory_is_said_with_the_options_that_help(tmp_path):
    """A single activation is larger than all the memory there is."""
    model, data = tmp_path / "m.onnx", tmp_path / "data.npz"
    denoiser(model, layers=2, channels=64)
    photographs(data, 1, 2400)
    for command, options in (
        (("calibrate", model, "-o", tmp_path / "c.calib"), "--memory or --batch-size"),
        (("quantize", model, "-o", tmp_path / "q.onnx"), "--memory or --batch-size"),
        (("equalize", model, "-o", tmp_path / "e.onnx"), "--memory or --batch-size"),
        (("emulate", model, "-o", tmp_path / "y.npz"), "--memory or --batch-size"),
    ):
        found = limited(2, *command, "--data", data)
        assert found.returncode == 2, found.stderr
        assert found.stderr.splitlines()[-1].startswith("error: there is not enough memory")
        assert found.stderr.rstrip().endswith(f"(lower {options}, or give smaller inputs)")
    assert not {path.name for path in tmp_path.iterdir()} - {"m.onnx", "data.npz"}
