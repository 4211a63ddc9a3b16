"""OpenVINO and QNN compute what the emulator says, every layer in integers."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import onnxq
import pytest
from onnxq.errors import ModelError
from onnxq.model.model import Model
from onnxq.validation.kernels import kernels

from runtimes.conftest import CLOSE, NAMES
from support.builder import Builder
from support.exact import CPU_SATURATES

PACKAGES = {"openvino": "openvino", "qnn": "onnxruntime_qnn"}
CASES = [("openvino", "w8a8"), ("openvino", "w7a8"), ("qnn", "w8a8"), ("qnn", "w8a16")]


def require(runtime):
    if importlib.util.find_spec(PACKAGES[runtime]) is None:
        pytest.skip(f"{PACKAGES[runtime]} is not installed: make runtimes, with QNN=1, has it")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("runtime", "scheme"), CASES)
def test_outputs_are_the_emulators_and_layers_integers(made, runtime, scheme, name):
    require(runtime)
    if (runtime, scheme) == ("openvino", "w8a8") and CPU_SATURATES:
        pytest.skip("OpenVINO's sums saturate on this CPU, as ONNX Runtime's do: see w7a8")
    each = made(name, runtime, scheme)
    found = onnxq.validate(each.model, each.quantized, each.data, metrics=["sqnr"],
                           executions=["emulate", runtime])  # fmt: skip
    _, emulated, ran = (row.values["sqnr"] for row in found.rows)
    assert ran > emulated - CLOSE[runtime]
    (told,) = found.kernels
    weighted = [kernel for kernel in told.kernels if kernel.weighted]
    assert (told.execution, bool(weighted)) == (runtime, True)
    assert [kernel.node for kernel in weighted if not kernel.integer] == []
    assert onnxq.inspect(each.quantized, lint=True).findings == ()


def test_layers_left_in_float_are_named(made):
    require("openvino")
    model = made("mobilenetv2", "openvino").model
    data = made("mobilenetv2", "openvino").data
    some, _ = onnxq.quantize(model, data, target="openvino", exclude=["node_linear"],
                             rounding="nearest", input_shapes=["1x1x28x28"])  # fmt: skip
    left = [each for each in kernels(some, "openvino") if each.weighted and not each.integer]
    assert [each.node for each in left] == ["node_linear"]
    assert left[0].reason


def test_the_rules_tell_what_goes_wrong(made, tmp_path):
    """Signed numbers through a Concat: what `signed-concat` is there for.

    A processor with AMX multiplies signed numbers as they are, and computes it right.
    """
    require("openvino")
    each = made("squeezenet", "openvino")
    signed, _ = onnxq.quantize(each.model, each.data, target="gpu", rounding="nearest",
                               input_shapes=["1x1x28x28"])  # fmt: skip
    findings = onnxq.inspect(signed, lint=True, target="openvino").findings
    assert {finding.rule for finding in findings} == {"signed-concat"}
    files = [str(tmp_path / name) for name in ("float.onnx", "signed.onnx", "data.npz")]
    onnxq.save(each.model, files[0])
    onnxq.save(signed, files[1])
    np.savez(files[2], **each.data)
    done = subprocess.run(
        [sys.executable, "-m", "onnxq", "validate", *files[:2], "--data", files[2], "--json",
         "--execution", "emulate", "--execution", "openvino"],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    _, *rows = json.loads(done.stdout)["rows"]
    emulated, ran = (row["outputs"][0]["sqnr_db"] for row in rows)
    assert ran < emulated - 3


def test_open_sizes_are_refused_not_run_on_the_cpu(made):
    require("qnn")
    each = made("detector", "qnn")
    opened, _ = onnxq.quantize(each.model, each.data, target="qnn", rounding="nearest")
    with pytest.raises(ModelError, match="QNN takes none of the model's nodes") as caught:
        onnxq.validate(each.model, opened, each.data, executions=["qnn"])
    assert "--input-shape" in caught.value.hint


def test_what_openvino_refuses_is_said():
    require("openvino")
    b = Builder()
    model = b.model(b.op("Relu", b.input(4)))
    proto = model.proto.__class__()
    proto.CopyFrom(model.proto)
    proto.graph.node[0].op_type, proto.graph.node[0].domain = "Nothing", "nobody"
    from onnxq.validation import runtimes

    with pytest.raises(ModelError, match="OpenVINO refuses the model"):
        runtimes.runner(Model(proto), "openvino")
    run = runtimes.runner(model, "openvino")
    (y,) = run({model.inputs[0].name: np.array([[-1, 0, 1, 2]], np.float32)})
    assert y.tolist() == [[0, 0, 1, 2]]
