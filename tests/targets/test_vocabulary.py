"""What a target can ask for beside formats: sizes, shapes, powers of two, one scale around a node."""

import numpy as np
import onnxq
import pytest
from onnxq.errors import UsageError
from onnxq.model.graph import Graph
from onnxq.model.operators import weight_layout
from onnxq.model.static import open_inputs
from onnxq.model.status import Float, Quantized
from onnxq.targets import Shapes, target_named
from onnxq.targets.sizes import Sizes

from support.builder import Builder
from support.cli_case import run


def own(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def convolution(outputs, inputs, kernel=(3, 3), group=1, *, first=False):
    """The refusal of `gpu` for a convolution of these channels; "" for none. The first layer reads
    the model's input through something without a weight.
    """
    b = Builder(1)
    x = b.input(inputs, 8, 8)
    weight = b.const(b.random(outputs, inputs // group, *kernel))
    x = b.op("Tanh", x) if first else b.op("Relu", b.conv(x, inputs, 1))
    out = (outputs, 9 - kernel[0], 9 - kernel[1])
    graph = Graph(b.model(b.op("Conv", x, weight, group=group, shape=out, name="conv")))
    return refused(graph, "conv")


def product(length, outputs, rows=None):
    b = Builder(1, batch=rows or "N")
    x = b.op("Relu", b.input(length))
    return refused(Graph(b.model(b.matmul(x, outputs, name="matmul"))), "matmul")


def refused(graph, name):
    node = graph.by_name[name]
    found = target_named("gpu").sizes.refusal(graph, node, weight_layout(graph, node))
    return "" if found is None else found.reason


@pytest.mark.usefixtures("real_sizes")
def test_gpu_takes_the_layers_that_nvidias_quantizer_takes():
    """As find_nodes_from_convs_to_exclude and …_matmul_… of modelopt 0.47 have it."""
    assert convolution(16, 16) == convolution(16, 8) == convolution(8, 16) == ""
    assert convolution(24, 4) == ""
    assert "24×3×3×5, too small" in convolution(24, 3, kernel=(3, 5))
    assert "12×16×3×3" not in convolution(12, 16)  # 16 is a multiple of 8
    assert "18×4×3×3" in convolution(18, 4)
    assert "8×8×3×3" in convolution(8, 8)
    assert convolution(8, 3, first=True) == ""
    assert "6×3×3×3" in convolution(6, 3, first=True)
    assert convolution(8, 8, group=8) == convolution(16, 16, group=4) == ""
    assert "8×1×1×1" in convolution(8, 8, kernel=(1, 1), group=8)
    assert "6×1×3×3" in convolution(6, 6, group=6)
    assert product(16, 16) == product(16, 64, rows=8) == ""
    assert "8×64, too small" in product(8, 64)
    assert "64×10, too small" in product(64, 10)
    assert product(64, 64, rows=1) == "a product of a matrix and a vector"


@pytest.mark.usefixtures("real_sizes")
def test_a_layer_too_small_has_its_reason():
    b = Builder(2, spread=1)
    x = b.op("Relu", b.conv(b.input(3, 8, 8), 16, 3, name="stem"))
    x = b.op("Relu", b.conv(x, 16, 3, name="body"))
    model = b.model(b.gemm(b.op("Flatten", b.op("GlobalAveragePool", x, shape=(16, 1, 1)),
                                shape=(16,)), 4, name="head"))  # fmt: skip
    data = {"x": np.random.default_rng(0).standard_normal((16, 3, 8, 8), np.float32)}
    _, result = onnxq.quantize(model, data, rounding="nearest")
    assert result.plan.weighted == {"stem", "body"}
    assert result.plan.nodes["head"].reason == "a product of 16×4, too small to gain from integers"
    _, result = onnxq.quantize(model, data, rounding="nearest", target="openvino")
    assert result.plan.weighted == {"stem", "body", "head"}


def residual():
    b = Builder(3, spread=1)
    x = b.op("Relu", b.conv(b.input(4, 8, 8), 8, 3, name="first"))
    y = b.conv(x, 8, 3, name="second")
    z = b.op("Relu", b.op("Add", x, y, name="sum"))
    return b.model(b.conv(z, 4, name="last"))


def quantized(target, **options):
    data = {"x": np.random.default_rng(0).standard_normal((32, 4, 8, 8), np.float32)}
    return onnxq.quantize(residual(), data, target=target, rounding="nearest", **options)


def test_powers_of_two_by_role(tmp_path):
    base = 'base = "gpu"\n[schemes.w8a8]\nweight = "int8"\nactivation = "int8"\n'

    def powers(roles):
        _, result = quantized(own(tmp_path, f"{base}power_of_two = {roles}\n"))
        plan = result.plan
        return [
            all((np.log2(each.scale) % 1 == 0).all() for each in every)
            for every in (plan.weights.values(), [e.parameters for e in plan.static.values()])
        ]

    assert powers([]) == [False, False]
    assert powers(["weights"]) == [True, False]
    assert powers(["activations"]) == [False, True]
    assert powers(["weights", "activations"]) == [True, True]
    with pytest.raises(UsageError, match=r"power_of_two may name weights, activations, not 'bias'"):
        powers(["bias"])


def test_one_scale_around_an_addition(tmp_path):
    def scales(text):
        _, result = quantized(own(tmp_path, f'base = "qnn"\n{text}'))
        graph = Graph(result.prepared.model)
        node = graph.by_name["sum"]
        names = [*node.inputs, graph.consumers(node.output)[0].node.output]
        return {float(result.plan.static[name].parameters.scale) for name in names}

    assert len(scales("")) == 3
    assert len(scales('unified = ["Add"]')) == 1


def test_dla_has_scales_on_all_tensors():
    model, result = quantized("gpu-dla")
    assert all(isinstance(each, Quantized) for each in result.plan.nodes.values())
    assert {each.parameters.zero_point.item() for each in result.plan.static.values()} == {0}
    assert sum(node.op_type == "QuantizeLinear" for node in model.proto.graph.node) == 5
    assert not result.plan.biases


def test_depthwise_convolutions_stay_float_on_the_web():
    b = Builder(4, spread=1)
    x = b.op("Relu", b.conv(b.input(4, 8, 8), 8, 3))
    model = b.model(b.conv(b.op("Relu", b.conv(x, 8, 3, group=8, name="depthwise")), 4))
    data = {"x": np.random.default_rng(0).standard_normal((16, 4, 8, 8), np.float32)}
    _, result = onnxq.quantize(model, data, target="web", rounding="nearest")
    assert isinstance(result.plan.nodes["depthwise"], Float)
    assert len(result.plan.weighted) == 2


@pytest.mark.parametrize("target", ["cpu", "qnn", "web"])
def test_biases_name_no_zero_point(target):
    model, _ = quantized(target)
    biases = [node for node in model.proto.graph.node
              if node.op_type == "DequantizeLinear" and ".bias" in node.name]  # fmt: skip
    assert biases
    assert {len(node.input) for node in biases} == {2}


def test_shapes_are_fixed_in_what_is_written(tmp_path):
    assert target_named("qnn").shapes is Shapes.STATIC
    model, _ = quantized("cpu", input_shapes=["1x4x8x8"])
    assert open_inputs(model) == ()
    assert [spec.shape for spec in (*model.inputs, *model.outputs)] == [(1, 4, 8, 8)] * 2
    found = onnxq.validate(residual(), model, {"x": np.ones((6, 4, 8, 8), np.float32)})
    assert found.samples == 6
    path = tmp_path / "m.onnx"
    onnxq.save(residual(), path)
    told = run("quantize", path, "--data", "random:16", "--target", "qnn", "--dry-run")
    assert "warning: target qnn wants inputs of fixed sizes, 'x' is N×4×8×8" in told.out + told.err
    assert "--input-shape x:1x4x8x8 fixes it" in told.out + told.err
    told = run("quantize", path, "--data", "random:16", "--target", "qnn", "--dry-run",
               "--input-shape", "x:1x4x8x8")  # fmt: skip
    assert "warning: target" not in told.out + told.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[sizes]\nleast = 3", "sizes has the unknown key 'least'"),
        ("[sizes]\nleast_side = 0", "sizes.least_side must be a whole number above 0, not 0"),
        ("[sizes]\nvectors = 1", "sizes.vectors must be true or false, not 1"),
        ("sizes = 3", "sizes must be a table"),
        (
            'runtime = "tflite"',
            "runtime must be one of emulate, saturate, cpu, cuda, openvino, qnn",
        ),
        ('shapes = "fixed"', "shapes must be one of any, batch, static"),
        ('unified = ["Conv"]', "'Conv' cannot be in unified"),
    ],
)
def test_mistakes_are_named(tmp_path, text, said):
    with pytest.raises(UsageError) as caught:
        target_named(own(tmp_path, f'base = "cpu"\n{text}\n'))
    assert said in str(caught.value)


def test_a_base_may_have_a_base(tmp_path):
    mine = target_named(own(tmp_path, 'base = "web"\n'))
    assert (mine.sizes, mine.own) == (Sizes(depthwise=False), target_named("cpu").own)


def test_operators_are_excluded_by_name():
    _, result = quantized("qnn", exclude_operators=["Add"])
    assert result.plan.nodes["sum"].reason == "--exclude-op Add"
    with pytest.raises(UsageError, match="--exclude-op 'Ad' matches no node") as caught:
        quantized("qnn", exclude_operators=["Ad"])
    assert "Add" in caught.value.hint


def test_a_runtime_that_is_missing_is_named_with_the_line_to_type():
    import importlib.util

    model, _ = quantized("cpu")
    for execution, package, typed in (
        ("openvino", "openvino", "openvino"),
        ("qnn", "onnxruntime_qnn", "onnxruntime-qnn"),
    ):
        if importlib.util.find_spec(package) is not None:
            continue
        with pytest.raises(onnxq.errors.OnnxqError) as caught:
            onnxq.validate(residual(), model, {"x": np.ones((2, 4, 8, 8), np.float32)},
                           executions=[execution])  # fmt: skip
        assert caught.value.exit_code == 2
        assert f"pip install {typed}" in caught.value.hint
