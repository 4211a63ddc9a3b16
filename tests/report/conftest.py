"""A small network whose channels differ by exponents, quantized twice, with a report on both."""

import numpy as np
import onnx
import onnxq
import pytest

from support.reporting import EVIL, Reported, renamed
from support.testdata import uneven


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    folder = tmp_path_factory.mktemp("reported")
    model = uneven()
    first = next(node.name for node in model.proto.graph.node if node.op_type == "Conv")
    onnx.save(renamed(model, first, EVIL).proto, folder / "model.onnx")
    model = onnxq.load(folder / "model.onnx")
    generator = np.random.default_rng(0)
    (spec,) = model.inputs
    data = {spec.name: generator.standard_normal((80, 3, 8, 8)).astype(np.float32)}
    int8, _ = onnxq.quantize(model, data, weights="per-tensor", ranges="mse")
    onnxq.save(int8, folder / "model.int8.onnx")
    int8 = onnxq.load(folder / "model.int8.onnx")
    plain, _ = onnxq.quantize(
        model, data, weights="per-tensor", equalize=False, ranges="minmax", bias_correction=False,
        rounding="nearest",
    )  # fmt: skip
    onnxq.save(plain, folder / "model.plain.onnx")
    plain = onnxq.load(folder / "model.plain.onnx")
    _, report = onnxq.report(
        folder / "model.onnx", [folder / "model.int8.onnx", folder / "model.plain.onnx"],
        data=data, max_drop=50.0, latency=True,
    )  # fmt: skip
    return Reported(model, int8, plain, data, report)
