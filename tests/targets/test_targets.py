"""Targets are files: those shipped, and those users write."""

import dataclasses

import numpy as np
import onnxq
import pytest
from onnx import parser
from onnxq.errors import UsageError
from onnxq.model.model import Model
from onnxq.model.status import Quantized
from onnxq.targets.read import target_named


def written(tmp_path, text: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_file_starts_from_a_shipped_target(tmp_path):
    found = target_named(written(tmp_path, 'base = "gpu"\nweighted = ["Conv"]\n'))
    assert found == dataclasses.replace(
        target_named("gpu"), name="mine", weighted=frozenset({"Conv"})
    )


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("symmetric = ", "not a TOML file", ""),
        ('base = "tpu"', "base must be one of gpu, cpu, qnn, openvino, web, cpu-arm64, gpu-dla, not 'tpu'", ""),
        ('base = "gpu"\nwieghted = []', "unknown key 'wieghted'", "did you mean 'weighted'?"),
        ('activation = "int8"', "no 'channel_bounds'", 'give it, or base = "gpu"'),
        ('base = "gpu"\nsymmetric = 1', "schemes.w8a8.symmetric must be true or false, not 1", ""),
        ('base = "gpu"\nplacement = "outputs"', "placement must be one of inputs, all", ""),
        ('base = "gpu"\nweighted = "Conv"', "weighted must be a list of operators", ""),
        ('base = "gpu"\nweighted = ["Cnov"]', "'Cnov' cannot be in weighted", "did you mean 'Conv'?"),
        ('base = "gpu"\nown = ["Erf"]', "'Erf' cannot be in own", ""),
        ('base = "gpu"\nproducts = ["Gemm"]', "'Gemm' cannot be in products", ""),
        ('base = "gpu"\nactivation = "uint9"', "schemes.w8a8.activation must be one of int8, uint8", ""),
        ('base = "gpu"\nactivation = "uint16"', "schemes.w8a8.activation must be one of int8", ""),
        ('base = "gpu"\n[schemes.w8a9]', "unknown scheme 'w8a9'", "did you mean"),
        ('base = "gpu"\n[schemes.w8a8]\nweihgt = 1', "the unknown key 'weihgt'", "'weight'"),
        ('base = "gpu"\n[schemes.w8]\nweight = "int8"\nsymmetric_weight = false',
         "schemes.w8.symmetric_weight must be true: its weights are not in blocks", ""),
        ('base = "gpu"\n[schemes.w4]\nweight = "uint4"\nwider = "w8"',
         "schemes.w4.wider must be one of a scheme of the file with wider weights or activations", ""),
        ('base = "gpu"\n[schemes.w4]\nweight = "int8"', "schemes.w4.weight must be one of int4, uint4", ""),
        ('base = "qnn"\n[schemes.w8a8]\nweight = "int8"\nactivation = "uint8"\nwider = "w8a16"',
         "schemes.w8a8.wider must be one of a scheme of the file with wider", ""),
        ('base = "gpu"\n[schemes.fp8]\nweight = "int8"', "schemes.fp8.weight must be one of float8e4m3fn", ""),
        ('base = "gpu"\n[schemes.fp8]\nweight = "float8e4m3fn"\nactivation = "float8e5m2"\nsymmetric = false',
         "schemes.fp8.symmetric must be true: float8e5m2 has no zero point", ""),
        ('base = "gpu"\nlargest_pooling_ratio = 0', "must be a number above 0", ""),
        ('base = "gpu"\nlint = "scale"', "lint must be a list of texts", ""),
        ('base = "gpu"\nschemes = 3', "schemes must be a table", ""),
    ],
)  # fmt: skip
def test_mistakes_are_named(tmp_path, text, said, hint):
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as error:
        target_named(path)
    assert str(error.value).startswith(f"{path}: ")
    assert said in str(error.value)
    assert hint in (error.value.hint or "")


def test_unknown_targets(tmp_path):
    with pytest.raises(UsageError, match="unknown target 'tpu'"):
        target_named("tpu")
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        target_named(str(tmp_path / "none.toml"))


def test_a_model_is_planned_for_it(tmp_path):
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[n,4] x) => (float[n,4] y) <float[4,4] w = {
        1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0}> {
        a = MatMul(x, w)  r = Relu(a)  y = MatMul(r, w)
    }"""
    model = Model(parser.parse_model(text), None)
    data = {"x": np.random.default_rng(0).standard_normal((32, 4), np.float32)}
    path = written(tmp_path, 'base = "gpu"\nweighted = ["Conv"]\nfloat_output = ["Conv"]\n')
    _, result = onnxq.quantize(model, data, target=path, allow_none=True)
    assert not any(isinstance(status, Quantized) for status in result.plan.nodes.values())
    _, result = onnxq.quantize(model, data, target=written(tmp_path, 'base = "gpu"'))
    assert sum(isinstance(status, Quantized) for status in result.plan.nodes.values()) >= 2
