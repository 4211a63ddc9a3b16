"""Int8 models from a stored calibration are the same bytes on every machine.

Only what depends on no processor is here: nearest rounding, no bias correction, no data. It was
the same with numpy's AVX-512, AVX2 and SSE loops, three kernels of OpenBLAS, one thread and many.
`scripts/same_bytes.py` compares the rest, on one machine.

The hashes are those of onnxq 0.1, but for `entropy`, whose ranges cost no more than the whole range
since, and on `gpu`: where values are rearranged behind a float operator, as in Flatten behind a
pool, one Q/DQ pair stands in front of the reader and no other; and of models equalized there
residual branches count. On `cpu` the zero point of biases is left out. Those of `auto` are of the
version that brought it. Where one changes on purpose, say in the commit which and why.
"""

import hashlib
import itertools

import onnx
import pytest
from onnxq.model import external

from support.cli_case import run
from support.testdata import TESTDATA

MODELS = {
    "tiny": (TESTDATA / "0.1" / "tiny.onnx", TESTDATA / "0.1" / "tiny.calib"),
    "export": (TESTDATA / "exports" / "dynamo-20.onnx", TESTDATA / "0.1" / "dynamo-20.calib"),
}
MSE = ("--ranges", "mse")
FLOAT = ("--no-equalize",)
OPTIONS = {
    **{
        f"{target} {weights}": ("--target", target, "--weights", weights, *FLOAT, *MSE)
        for target, weights in itertools.product(("gpu", "cpu"), ("per-channel", "per-tensor"))
    },
    **{ranges: ("--ranges", ranges, *FLOAT) for ranges in ("minmax", "percentile", "entropy")},
    "power-of-two": ("--scale", "power-of-two", *FLOAT, *MSE),
    "include": ("--include", "[Cc]onv|stem|project", *FLOAT, *MSE),
    "equalized gpu": ("--weights", "per-tensor", *MSE),
    "equalized cpu": ("--weights", "per-tensor", "--target", "cpu", *MSE),
    "not centered": ("--weights", "per-tensor", "--no-absorb-bias", *MSE),
    "auto gpu": FLOAT,
    "auto cpu": ("--target", "cpu", *FLOAT),
}
HASHES = {
    "tiny": {
        "gpu per-channel": "da2776c9458730eaa3b23940e800f80eea194c49d6ae353c58c35d8f3f61eae6",
        "gpu per-tensor": "c0ac30f9fb24fc843764e80caf659af6f94f730540b89e157ee3c2d583c55665",
        "cpu per-channel": "ed151ef955e354f3e5b77610a07817c1a2aef1b757782581b6187a240b9686d2",
        "cpu per-tensor": "bf30295aa420ce24db0f251f22c1b5b8e3f367a6af2678c11412df5a4e8b17a5",
        "minmax": "d8b9ab87b64ce74b5e944ac767d73123b8970d506b2daec96684ed21078916a3",
        "percentile": "d8b9ab87b64ce74b5e944ac767d73123b8970d506b2daec96684ed21078916a3",
        "entropy": "d8b9ab87b64ce74b5e944ac767d73123b8970d506b2daec96684ed21078916a3",
        "power-of-two": "d2e3af69f027ee6bf33f5b004ec2d4f643e00ef19611d2bb6a133296547de02c",
        "include": "1f380d46cde50b5d6dc524baf96b23bcf215561f3724d3b0457cdf4607dbd598",
        "equalized gpu": "7c201acd09e359b0d7cd5cba4c922bae5f7b0de01fd4281c499f30b97b146812",
        "equalized cpu": "bf30295aa420ce24db0f251f22c1b5b8e3f367a6af2678c11412df5a4e8b17a5",
        "not centered": "6ac9dd22418178d29773a9a1b5e631a7b76599bb500979f1ac867d0b4a6f7ac6",
        "auto gpu": "da2776c9458730eaa3b23940e800f80eea194c49d6ae353c58c35d8f3f61eae6",
        "auto cpu": "ed151ef955e354f3e5b77610a07817c1a2aef1b757782581b6187a240b9686d2",
    },
    "export": {
        "gpu per-channel": "af8bfa075a07d12632e56237e25058e825e05f53d46d019399407b875e0335b1",
        "gpu per-tensor": "4521b9e7291567d11bb7807f025c94d612534646cb43506e85bd960ce1a63ea2",
        "cpu per-channel": "b808cd740be2c601f2991ba41d0c667371623510c3fa0de3a8d5e6835924d817",
        "cpu per-tensor": "33aded202922c8f77841bc78128d2254c1ded9cefd1d04cff037e5a54887f23f",
        "minmax": "069e4104f627a6d2f3ac4a841ddca78d88a44593edaa9d7b35336d912e662812",
        "percentile": "069e4104f627a6d2f3ac4a841ddca78d88a44593edaa9d7b35336d912e662812",
        "entropy": "7ecd14a0ddb1830a58b06d8754c6fef140bac9a7ad8a5e1f878999d243900e34",
        "power-of-two": "bbe24c67c25ffdd2086ce57069c7f7a2a22b5727f1d6998e2756e097b0a55143",
        "include": "a514f70cdea5ad9a3226e8255db15b2114fed635d49c9388ac1ba780b5a68887",
        "equalized gpu": "70cae8d427fadb20b734e627ac98e098baf8b85db16fd678775702ca80185855",
        "equalized cpu": "f4dfdf1fff31207df64ad8bc48c41dafd853f57cd5ab6ffd7e0a1b395c37a693",
        "not centered": "70cae8d427fadb20b734e627ac98e098baf8b85db16fd678775702ca80185855",
        "auto gpu": "8903cd5e359ff7f6058b970c5eb8b935d1435f4d6fe1e0c72db2bc4216dcdd4f",
        "auto cpu": "56e634174bc4a6b323536749e874cfa55da220756737737a4d4ef5294af6a56b",
    },
}


def digest(path):
    """SHA-256 over nodes, names and values; metadata and inferred shapes are not among them."""
    proto = onnx.load(path)
    result = hashlib.sha256()
    for info in (*proto.graph.input, *proto.graph.output, *proto.opset_import):
        result.update(info.SerializeToString(deterministic=True))
    for node in proto.graph.node:
        result.update(node.SerializeToString(deterministic=True))
    for tensor in proto.graph.initializer:
        values = external.values_of(tensor)
        result.update(f"{tensor.name} {tensor.data_type} {values.shape}".encode())
        result.update(values.tobytes())
    return result.hexdigest()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("options", OPTIONS)
def test_the_same_bytes_as_ever(name, options, tmp_path):
    model, calibration = MODELS[name]
    out = tmp_path / "int8.onnx"
    made = run(
        "quantize", model, "--calibration", calibration, "--rounding", "nearest",
        "--no-bias-correction", *OPTIONS[options], "-o", out,
    )  # fmt: skip
    assert made.code == 0, made.err
    assert digest(out) == HASHES[name][options]


def test_the_options_make_a_difference():
    """Otherwise a hash would hold whatever the option does."""
    for hashes in HASHES.values():
        assert len(set(hashes.values())) >= 9
