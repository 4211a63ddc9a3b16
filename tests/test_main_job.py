"""The main job on the shipped networks and images, end to end, as `make demo` runs it."""

from functools import cache
from pathlib import Path

import numpy as np
import onnxq
import pytest
from onnxq.calibration import files
from onnxq.calibration.merge import merge
from PIL import Image
from threadpoolctl import threadpool_limits

TESTDATA = Path(__file__).parent.parent / "testdata"
IMAGES = TESTDATA / "fashion-mnist"
GRAY = "unit,color=gray,mean=0.5,std=0.5"

pytestmark = pytest.mark.slow


def top1(network: str, int8: onnxq.Model, execution: str) -> tuple[float, float, float]:
    """Float and int8 top-1, %, and the SQNR of int8, dB, on the 2,000 test images."""
    result = onnxq.validate(
        TESTDATA / f"{network}.onnx", int8, IMAGES / "test", preprocess=GRAY,
        executions=[execution],
    )  # fmt: skip
    exact, quantized = result.rows
    return exact.values["top1"], quantized.values["top1"], quantized.values["sqnr"]


@cache
def quantize(network: str, **options):
    return onnxq.quantize(
        TESTDATA / f"{network}.onnx", IMAGES / "calibration", preprocess=GRAY, **options
    )[0]


def test_per_tensor_int8_collapses_and_equalization_gives_it_back():
    plain = quantize(
        "mobilenetv2",
        weights="per-tensor",
        equalize=False,
        bias_correction=False,
        rounding="nearest",
        ranges="minmax",
    )
    exact, collapsed, _ = top1("mobilenetv2", plain, "emulate")
    assert exact > 87
    assert collapsed < 50
    _, restored, sqnr = top1(
        "mobilenetv2", quantize("mobilenetv2", weights="per-tensor"), "emulate"
    )
    assert restored > exact - 0.5
    assert sqnr > 30


def test_int8_does_not_depend_on_the_threads_that_multiply_matrices():
    found = [quantize("mobilenetv2", weights="per-tensor")]
    with threadpool_limits(limits=1, user_api="blas"):
        found.append(quantize.__wrapped__("mobilenetv2", weights="per-tensor"))
    assert found[0].proto.SerializeToString() == found[1].proto.SerializeToString()


@pytest.mark.parametrize("network", ["squeezenet", "mobilenetv2"])
@pytest.mark.parametrize(("target", "execution"), [("gpu", "emulate"), ("cpu", "cpu")])
def test_default_int8_keeps_the_accuracy(network, target, execution):
    exact, quantized, sqnr = top1(network, quantize(network, target=target), execution)
    assert quantized > exact - 0.5
    assert sqnr > 28


def test_equalized_float_outputs_are_bit_identical_on_unseen_images():
    model, result = onnxq.equalize(
        TESTDATA / "mobilenetv2.onnx", data=IMAGES / "calibration", preprocess=GRAY
    )
    assert result.equalization.changed
    normalized, _ = onnxq.equalize(
        TESTDATA / "mobilenetv2.onnx", data=IMAGES / "calibration", preprocess=GRAY, relu6="skip"
    )
    outputs = [onnxq.emulate(m, unseen_images()) for m in (normalized, model)]
    assert (outputs[0]["logits"] == outputs[1]["logits"]).all()


def unseen_images():
    files = sorted((IMAGES / "test").glob("*/*.png"))[::20]
    pixels = np.stack([np.asarray(Image.open(file), np.float32) for file in files])
    return {"image": (pixels / 127.5 - 1)[:, None]}


def test_the_same_input_gives_the_same_bytes():
    first, second = (quantize("squeezenet").proto.SerializeToString(deterministic=True)
                     for _ in range(2))  # fmt: skip
    assert first == second


def test_shards_merge_to_the_bytes_of_one_run(tmp_path):
    def calibrate(**options):
        return onnxq.calibrate(
            TESTDATA / "squeezenet.onnx", IMAGES / "calibration", preprocess=GRAY, **options
        )

    files.save(calibrate(), tmp_path / "one.calib")
    parts = [calibrate(shard=(i, 3)) for i in (3, 1, 2)]
    files.save(merge(parts), tmp_path / "merged.calib")
    assert (tmp_path / "one.calib").read_bytes() == (tmp_path / "merged.calib").read_bytes()
