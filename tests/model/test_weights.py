"""Weights in one form: what their operators compute, written as sums over outputs and inputs."""

import numpy as np
import pytest
from onnx import helper
from onnxq.model.model import Model
from onnxq.model.session import open_session, run
from onnxq.model.weights import WeightLayout

RNG = np.random.default_rng(0)


def layout(shape, groups=1, **more):
    return WeightLayout("w", "b", 0, 1, shape, groups, 1, 1, 0, **more)


LAYOUTS = {
    "conv": layout((6, 2, 3, 3)),
    "grouped conv": layout((6, 2, 3), groups=3),
    "depthwise conv": layout((4, 1, 2, 2), groups=4),
    "gemm": layout((5, 7)),
    "transposed": layout((4, 3, 2, 2), transposed=True),
    "grouped transposed": layout((4, 3, 2), groups=2, transposed=True),
    "matmul": layout((7, 5), output_last=True),
    "stack": layout((2, 3, 7, 5), output_last=True),
}
SIZES = {  # outputs, inputs over all groups, taps
    "conv": (6, 2, 9), "grouped conv": (6, 6, 3), "depthwise conv": (4, 4, 4), "gemm": (5, 7, 1),
    "transposed": (3, 4, 4), "grouped transposed": (6, 4, 2), "matmul": (5, 7, 1),
    "stack": (5, 7, 6),
}  # fmt: skip

every = pytest.mark.parametrize("kind", LAYOUTS)


@every
def test_sizes(kind):
    found = LAYOUTS[kind]
    assert (found.outputs, found.inputs, found.taps) == SIZES[kind]
    assert found.outputs * found.columns == np.prod(found.shape)
    assert found.per_channel is (kind != "stack")


@every
def test_there_and_back_again(kind):
    found = LAYOUTS[kind]
    weight = RNG.standard_normal(found.shape)
    form = found.to_output_major(weight)
    assert form.shape == (found.outputs, found.inputs // found.groups, found.taps)
    back = found.from_output_major(form)
    assert np.array_equal(back, weight)
    assert back.flags.c_contiguous


def computed(op_type, x, weight, **attributes):
    shapes = {"x": x.shape, "w": weight.shape, "y": None}
    infos = [helper.make_tensor_value_info(n, 1, shape) for n, shape in shapes.items()]
    graph = helper.make_graph(
        [helper.make_node(op_type, ["x", "w"], ["y"], **attributes)], "g", infos[:2], infos[2:]
    )
    opsets = [helper.make_opsetid("", 17)]
    model = Model(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    return run(open_session(model, optimize=False), ["y"], {"x": x, "w": weight})[0]


@pytest.mark.parametrize(
    ("kind", "op_type", "attributes"),
    [
        ("grouped conv", "Conv", {"group": 3, "kernel_shape": [3]}),
        ("grouped transposed", "ConvTranspose", {"group": 2, "kernel_shape": [2]}),
        ("gemm", "Gemm", {"transB": 1}),
        ("matmul", "MatMul", {}),
    ],
)
def test_an_output_is_the_sum_over_its_inputs(kind, op_type, attributes):
    """One input channel at a time: its share of each output is the row of the form."""
    found = LAYOUTS[kind]
    weight = RNG.standard_normal(found.shape).astype(np.float32)
    form, index = found.to_output_major(weight), found.input_index()
    assert index.shape == form.shape[:2]
    for channel in range(found.inputs):
        wanted = np.zeros((found.outputs, found.taps))
        for output, place in np.argwhere(index == channel):
            wanted[output] = form[output, place]
        x = np.zeros((1, found.inputs, *[1] * (len(found.shape) - 2)), np.float32)
        x[0, channel] = 1
        if op_type == "Conv":  # an impulse in the middle comes out turned round
            x = np.pad(x, ((0, 0), (0, 0), (2, 2)))
            wanted = wanted[:, ::-1]
        got = computed(op_type, x, weight, **attributes)
        np.testing.assert_allclose(got.reshape(found.outputs, -1), wanted, rtol=1e-6)


@pytest.mark.parametrize("kind", ["conv", "gemm", "transposed", "matmul", "stack"])
def test_fewer_inputs(kind):
    found = LAYOUTS[kind]
    fewer = found.of_inputs(1)
    assert (fewer.outputs, fewer.inputs, fewer.taps) == (found.outputs, 1, found.taps)
    weight = RNG.standard_normal(found.shape)
    part = found.to_output_major(weight)[:, :1]
    assert np.array_equal(fewer.to_output_major(fewer.from_output_major(part)), part)


@pytest.mark.parametrize(
    ("bias", "vector"),
    [
        ([1.0, 2, 3, 4, 5], [1, 2, 3, 4, 5]),
        ([[1.0, 2, 3, 4, 5]], [1, 2, 3, 4, 5]),
        (7.0, [7] * 5),
        ([7.0], [7] * 5),
        ([[7.0]], [7] * 5),
        ([[1.0], [2.0]], None),
        ([[1.0, 2, 3, 4, 5]] * 2, None),
    ],
)
def test_a_bias_is_a_vector_unless_rows_differ(bias, vector):
    found = LAYOUTS["gemm"].bias_vector(np.array(bias))
    assert (found if vector is None else found.tolist()) == vector
