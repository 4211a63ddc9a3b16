"""Scale classes of the patterns networks are made of: what is free, tied or pinned, and why.

Each model is also scaled by random powers of two, which must not change a bit of its outputs.
"""

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnxq.equalization.apply import apply_scales
from onnxq.equalization.classes import find_classes
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.normalize import normalize

from support.builder import Builder
from support.random_graphs import random_feeds
from support.running import assert_exact, random_exponents, same_outputs


@pytest.fixture(params=["N", 2], ids=["dynamic batch", "fixed batch"])
def b(request):
    return Builder(batch=request.param)


def ids(classes, tensor):
    return classes.patterns[tensor].ravel()


def free(classes, tensor):
    """Number of scales of the tensor that may be chosen independently."""
    found = ids(classes, tensor)
    return len(set(found[found > 0].tolist()))


def pinned(classes, tensor):
    return not np.any(classes.patterns[tensor])


def reason(classes, tensor):
    return {barrier.reason for barrier in classes.barriers if barrier.tensor == tensor}


def check(builder, *outputs):
    return assert_exact(builder.model(*outputs))


def output_of(model, op_type):
    return next(node.output[0] for node in model.proto.graph.node if node.op_type == op_type)


# --- weighted ----------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [1, 2, 3, 6])
def test_a_grouped_convolution_ties_nothing(b, group):
    first = b.op("Relu", b.conv(b.input(3, 5, 5), 6))
    second = b.op("Relu", b.conv(first, 12, 3, group=group))
    classes = check(b, b.head(second))
    assert free(classes, first) == 6
    assert free(classes, second) == 12
    assert not set(ids(classes, first)) & set(ids(classes, second))


@pytest.mark.parametrize("group", [1, 2, 4])
def test_a_transposed_convolution_in_groups(b, group):
    first = b.op("Relu", b.conv(b.input(3, 4, 4), 4))
    second = b.conv_transpose(first, 8, group=group)
    classes = check(b, b.head(second))
    assert free(classes, first) == 4
    assert free(classes, second) == 8


@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("bias", ["vector", "row", "scalar", None])
def test_gemm_with_any_bias(b, trans_b, bias):
    first = b.gemm(b.input(5), 6, trans_b=trans_b, bias=bias, alpha=0.5, beta=2.0)
    classes = check(b, b.gemm(b.op("Relu", first), 3))
    assert free(classes, first) == 6


def test_gemm_with_its_input_transposed():
    b = Builder(batch=4)
    x = b.op("Transpose", b.matmul(b.input(5), 6), perm=[1, 0], shape=())
    y = b.op("Gemm", x, b.const(b.random(6, 3)), shape=(3,), transA=1)
    classes = check(b, y)
    assert free(classes, x) == 6


def test_matmul_and_add(b):
    x = b.matmul(b.input(7, 5), 6)
    added = b.op("Add", x, b.const(b.random(6)))
    classes = check(b, b.matmul(b.op("Relu", added), 3))
    assert np.array_equal(ids(classes, x), ids(classes, added))
    assert free(classes, x) == 6


def test_a_bias_computed_at_run_time_pins(b):
    x = b.input(3, 4, 4)
    bias = b.op("ReduceMean", x, axes=[0, 2, 3], keepdims=0, shape=())
    conv = b.op("Conv", x, b.const(b.random(3, 3, 1, 1)), bias, shape=(3, 4, 4))
    classes = check(b, b.head(conv))
    assert pinned(classes, conv)
    assert reason(classes, conv) == {"its bias is computed at run time"}


def test_an_overridable_weight_is_a_barrier(b):
    first = b.conv(b.input(3, 4, 4), 4, name="first")
    second = b.conv(first, 4, name="second")
    proto = b.proto(b.head(second))
    weight = next(n for n in proto.graph.node if n.name == "second").input[1]
    proto.graph.input.append(helper.make_tensor_value_info(weight, TensorProto.FLOAT, [4, 4, 1, 1]))
    model, _ = normalize(Model(proto))
    classes = assert_exact(model)
    assert pinned(classes, first)
    assert reason(classes, first) == {"its weight is not a constant"}


def test_a_shared_initializer_is_scaled_for_each_reader_alone(b):
    weight = b.const(b.random(4, 4, 1, 1))
    first = b.conv(b.input(4, 4, 4), 4, weight=weight, name="first")
    second = b.conv(b.op("Relu", first), 4, weight=weight, name="second")
    model = b.model(b.head(second))
    classes = assert_exact(model)
    assert free(classes, first) == free(classes, second) == 4
    scaled, _ = apply_scales(Graph(model), classes, random_exponents(classes))
    readers = {n.name: n.input[1] for n in scaled.proto.graph.node if n.op_type == "Conv"}
    assert readers["first"] != readers["second"]


# --- data movement -----------------------------------------------------------------------------


def test_concat_of_pieces_with_different_origins(b):
    x = b.input(3, 4, 4)
    first, second = b.conv(x, 2), b.op("Relu", b.conv(x, 4))
    joined = b.op("Concat", first, x, second, shape=(9, 4, 4), axis=1)
    classes = check(b, b.head(joined))
    expected = np.concatenate([ids(classes, first), np.zeros(3), ids(classes, second)])
    assert np.array_equal(ids(classes, joined), expected)
    assert free(classes, joined) == 6


def test_concat_in_space_ties(b):
    x = b.input(3, 4, 4)
    first, second = b.conv(x, 4), b.conv(x, 4)
    joined = b.op("Concat", first, second, shape=(4, 8, 4), axis=2)
    classes = check(b, b.head(joined))
    assert np.array_equal(ids(classes, first), ids(classes, second))
    assert free(classes, joined) == 4


def test_split_and_slice(b):
    x = b.conv(b.input(3, 4, 4), 6)
    first, second = b.op("Split", x, b.ints(2, 4), outputs=2, shapes=[(2, 4, 4), (4, 4, 4)], axis=1)
    part = b.op("Slice", second, b.ints(3), b.ints(-9), b.ints(1), b.ints(-2), shape=(2, 4, 4))
    classes = check(b, b.head(first), b.head(part))
    assert np.array_equal(ids(classes, first), ids(classes, x)[:2])
    assert np.array_equal(ids(classes, part), ids(classes, x)[2:][[3, 1]])
    assert free(classes, x) == 6


def test_channel_shuffle(b):
    x = b.conv(b.input(3, 4, 4), 6)
    y = b.op("Reshape", x, b.ints(-1, 2, 3, 4, 4), shape=(2, 3, 4, 4))
    y = b.op("Transpose", y, perm=[0, 2, 1, 3, 4], shape=(3, 2, 4, 4))
    y = b.op("Reshape", y, b.ints(-1, 6, 4, 4), shape=(6, 4, 4))
    classes = check(b, b.head(b.conv(y, 6, group=2)))
    assert np.array_equal(ids(classes, y), ids(classes, x).reshape(2, 3).T.ravel())
    assert free(classes, y) == 6


def test_global_pool_flatten_gemm(b):
    x = b.op("Relu", b.conv(b.input(3, 4, 4), 6))
    classes = check(b, b.head(x))
    assert free(classes, x) == 6
    assert np.array_equal(classes.linears[1].input_ids, ids(classes, x))


def test_flatten_with_space_ties_the_columns_of_each_channel(b):
    x = b.conv(b.input(3, 4, 4), 6)
    classes = check(b, b.head(b.op("Flatten", x, shape=(96,))))
    assert np.array_equal(classes.linears[1].input_ids, np.repeat(ids(classes, x), 16))


def test_a_reshape_by_a_shape_computed_at_run_time(b):
    x = b.conv(b.input(3, 4, 4), 6)
    size = b.op("Shape", x, shape=())
    batch = b.op("Gather", size, b.ints(0), shape=())
    target = b.op("Concat", batch, b.ints(-1), axis=0, shape=())
    y = b.op("Reshape", x, target, shape=(96,))
    classes = check(b, b.head(y))
    assert free(classes, x) == 6


def test_a_reshape_that_depends_on_the_batch_is_a_barrier():
    """[N, 2, 3] as [4, …]: which scale an element has would depend on N, which nothing fixes."""
    b = Builder()
    x = b.op("Transpose", b.matmul(b.input(3, 5), 2), perm=[0, 2, 1], shape=(2, 3))
    y = b.op("Reshape", x, b.ints(4, -1), shape=())
    classes = check(b, y)
    assert pinned(classes, x)


def test_attention_passes_from_value_to_output(b):
    x = b.input(5, 4)
    q, k, v = (b.matmul(x, 4) for _ in range(3))
    k = b.op("Transpose", k, perm=[0, 2, 1], shape=(4, 5))
    score = b.op("MatMul", q, k, shape=(5, 5))
    mixed = b.op("MatMul", b.op("Softmax", score, axis=-1), v, shape=(5, 4))
    classes = check(b, b.matmul(mixed, 3))
    assert np.array_equal(ids(classes, v), ids(classes, mixed))
    assert free(classes, v) == 4
    assert pinned(classes, q)
    assert pinned(classes, k)
    assert reason(classes, k) == {"both operands carry scales"}


def test_multi_head_attention(b):
    """Heads split off by Reshape and Transpose: every channel of V keeps its own scale."""
    x = b.input(5, 4)

    def heads(t, perm, shape):
        t = b.op("Reshape", t, b.ints(0, 5, 2, 2), shape=(5, 2, 2))
        return b.op("Transpose", t, perm=perm, shape=shape)

    q = heads(b.matmul(x, 4), [0, 2, 1, 3], (2, 5, 2))
    k = heads(b.matmul(x, 4), [0, 2, 3, 1], (2, 2, 5))
    value = b.matmul(x, 4)
    v = heads(value, [0, 2, 1, 3], (2, 5, 2))
    score = b.op("Softmax", b.op("MatMul", q, k, shape=(2, 5, 5)), axis=-1)
    y = b.op("MatMul", score, v, shape=(2, 5, 2))
    y = b.op("Transpose", y, perm=[0, 2, 1, 3], shape=(5, 2, 2))
    y = b.op("Reshape", y, b.ints(0, 5, 4), shape=(5, 4))
    classes = check(b, b.matmul(y, 3))
    assert np.array_equal(ids(classes, y), ids(classes, value))
    assert free(classes, y) == 4


@pytest.mark.parametrize("packed", ["Split", "Gather", "Slice"])
def test_attention_with_packed_projections(b, packed):
    """One product for Q, K and V, its bias behind it: V's third of the channels is free."""
    x = b.op("LayerNormalization", b.input(5, 4), *(b.const(b.random(4)) for _ in range(2)))
    value = b.op("Add", b.matmul(x, 12), b.const(b.random(12)))
    if packed == "Split":
        parts = b.op("Split", value, b.ints(4, 4, 4), outputs=3, shapes=[(5, 4)] * 3, axis=-1)
        heads = [
            b.op("Transpose", b.op("Reshape", part, b.ints(0, 5, 2, 2), shape=(5, 2, 2)),
                 perm=[0, 2, 1, 3], shape=(2, 5, 2))
            for part in parts
        ]  # fmt: skip
    else:
        y = b.op("Reshape", value, b.ints(0, 5, 3, 2, 2), shape=(5, 3, 2, 2))
        y = b.op("Transpose", y, perm=[2, 0, 3, 1, 4], shape=None)
        if packed == "Gather":
            heads = [b.op("Gather", y, b.const(np.int64(i)), shape=(2, 5, 2)) for i in range(3)]
        else:
            heads = [
                b.op("Squeeze", b.op("Slice", y, b.ints(i), b.ints(i + 1), b.ints(0)), b.ints(0),
                     shape=(2, 5, 2))
                for i in range(3)
            ]  # fmt: skip
    q, k, v = heads
    k = b.op("Transpose", k, perm=[0, 1, 3, 2], shape=(2, 2, 5))
    q = b.op("Mul", q, b.const(np.float32(0.7)))
    score = b.op("Softmax", b.op("MatMul", q, k, shape=(2, 5, 5)), axis=-1)
    y = b.op("MatMul", score, v, shape=(2, 5, 2))
    y = b.op("Transpose", y, perm=[0, 2, 1, 3], shape=(5, 2, 2))
    y = b.op("Reshape", y, b.ints(0, 5, 4), shape=(5, 4))
    classes = check(b, b.matmul(y, 3))
    assert free(classes, x) == 4
    assert not np.any(ids(classes, value)[:8])
    assert np.array_equal(ids(classes, value)[8:], ids(classes, y))
    assert free(classes, y) == 4


def test_a_gelu_written_out_pins_on_both_sides(b):
    x = b.matmul(b.input(5, 4), 6)
    y = b.op("Erf", b.op("Div", x, b.const(np.float32(1.5))))
    y = b.op("Mul", b.op("Add", y, b.const(np.float32(1))), b.const(np.float32(0.5)))
    y = b.op("Mul", x, y)
    classes = check(b, b.matmul(y, 3))
    assert pinned(classes, x)
    assert pinned(classes, y)
    assert "Erf is not homogeneous" in {barrier.reason for barrier in classes.barriers}


@pytest.mark.parametrize("centred", [True, False], ids=["LayerNorm", "RMSNorm"])
@pytest.mark.parametrize("first", [True, False])
def test_a_norm_written_out_frees_its_output(b, centred, first):
    """As exporters write LayerNorm below opset 17, and RMSNorm."""
    x = b.matmul(b.input(5, 3), 6)
    y = b.op("Sub", x, b.op("ReduceMean", x, axes=[-1], shape=(5, 1))) if centred else x
    power = b.op("ReduceMean", b.op("Pow", y, b.const(np.float32(2))), axes=[-1], shape=(5, 1))
    root = b.op("Sqrt", b.op("Add", power, b.const(np.float32(1e-5))))
    y, gain = b.op("Div", y, root), b.const(b.random(6))
    y = b.op("Mul", *((gain, y) if first else (y, gain)), shape=(5, 6))
    if centred:
        y = b.op("Add", y, b.const(b.random(6)))
    classes = check(b, b.matmul(y, 3))
    assert pinned(classes, x)
    assert free(classes, y) == 6


@pytest.mark.parametrize("shape", [(), (1, 1, 1)])
def test_a_factor_that_is_no_gain_for_each_channel_keeps_pinned_what_is(b, shape):
    x = b.op("Sigmoid", b.conv(b.input(3, 3, 3), 4))
    y = b.op("Mul", x, b.const(b.random(*shape)))
    classes = check(b, b.head(y))
    assert pinned(classes, y)


def test_constants_keep_their_axes(b):
    """A bias of one axis stays one: ONNX Runtime's fusions look for that."""
    x = b.op("Add", b.matmul(b.input(5, 4), 6), b.const(b.random(6)), name="add")
    y = b.op("Mul", b.op("Sigmoid", b.matmul(x, 6)), b.const(b.random(1, 6)), name="mul")
    wide = b.op("Add", b.matmul(y, 6), b.const(b.random()), name="wide")
    model = b.model(b.matmul(b.op("Add", x, wide), 3))
    graph = Graph(model)
    classes = find_classes(graph)
    scaled = Graph(apply_scales(graph, classes, random_exponents(classes))[0])
    shapes = {
        name: scaled.constant(scaled.by_name[name].input(1)).shape
        for name in ("add", "mul", "wide")
    }
    assert shapes == {"add": (6,), "mul": (1, 6), "wide": (6,)}


# --- branches ----------------------------------------------------------------------------------


def test_residual_adds_tie_all_branches(b):
    x = b.input(3, 4, 4)
    trunk = b.conv(x, 4)
    branch = b.conv(b.op("Relu", trunk), 4, 3)
    added = b.op("Add", trunk, branch)
    shifted = b.op("Add", added, b.const(b.random(4, 1, 1)))
    other = b.conv(trunk, 2)
    again = b.op("Add", b.conv(b.op("Relu", shifted), 4), shifted)
    classes = check(b, b.head(again), b.head(other))
    for tensor in (branch, added, shifted, again):
        assert np.array_equal(ids(classes, tensor), ids(classes, trunk))
    assert free(classes, trunk) == 4
    assert free(classes, other) == 2


def test_a_residual_from_the_graph_input_pins(b):
    x = b.input(3, 4, 4)
    conv = b.conv(x, 3)
    classes = check(b, b.head(b.op("Add", conv, x)))
    assert pinned(classes, conv)


def test_a_branch_of_one_channel_ties_all_channels(b):
    x = b.input(3, 4, 4)
    wide, narrow = b.conv(x, 4), b.conv(x, 1)
    added = b.op("Add", wide, narrow)
    classes = check(b, b.head(added))
    assert free(classes, added) == free(classes, wide) == 1


def unfolded(b):
    """A layer that does not take up constants behind it: an activation is between."""
    return b.op("LeakyRelu", b.conv(b.input(3, 4, 4), 4))


@pytest.mark.parametrize("op_type", ["Add", "Sub", "Sum", "Mean", "Max", "Min"])
@pytest.mark.parametrize("shape", [(), (1,), (4, 1, 1), (1, 4, 1, 1), (4, 4, 4)])
@pytest.mark.parametrize("first", [True, False])
def test_constants_among_tied_operands_take_the_scale(b, op_type, shape, first):
    x = unfolded(b)
    value = b.const(b.random(*shape))
    operands = (value, x) if first else (x, value)
    classes = check(b, b.head(b.op(op_type, *operands, shape=(4, 4, 4))))
    assert free(classes, x) == 4


def test_squeeze_and_excite(b):
    x = b.op("Relu", b.conv(b.input(3, 4, 4), 4))
    gate = b.op("GlobalAveragePool", x, shape=(4, 1, 1))
    squeezed = b.op("Relu", b.conv(gate, 2))
    excited = b.conv(squeezed, 4)
    gated = b.op("Mul", x, b.op("Sigmoid", excited))
    classes = check(b, b.head(gated))
    assert free(classes, x) == 4
    assert np.array_equal(ids(classes, gated), ids(classes, x))
    assert free(classes, squeezed) == 2
    assert pinned(classes, excited)
    assert reason(classes, excited) == {"Sigmoid is not homogeneous"}


def test_of_two_linear_factors_one_is_pinned(b):
    x = b.input(3, 4, 4)
    first, second = b.conv(x, 4), b.conv(x, 4)
    product = b.op("Mul", first, second)
    classes = check(b, b.head(product))
    assert sorted([pinned(classes, first), pinned(classes, second)]) == [False, True]
    assert free(classes, product) == 4
    loser = first if pinned(classes, first) else second
    assert reason(classes, loser) == {"of two factors one must keep its scale"}


def test_a_square_and_a_divisor_are_barriers(b):
    x = b.input(3, 4, 4)
    base, divisor = b.conv(x, 4), b.conv(x, 4)
    square = b.op("Mul", base, base)
    ratio = b.op("Div", b.conv(x, 4), b.op("Sigmoid", divisor))
    classes = check(b, b.head(square), b.head(ratio))
    assert pinned(classes, base)
    assert reason(classes, base) == {"it divides by, or squares, an activation"}


@pytest.mark.parametrize("op_type", ["Mul", "Div"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)])
def test_a_constant_factor_passes(b, op_type, shape):
    x = unfolded(b)
    y = b.op(op_type, x, b.const(np.abs(b.random(*shape)) + 0.5))
    classes = check(b, b.head(y))
    assert np.array_equal(ids(classes, y), ids(classes, x))


@pytest.mark.parametrize("op_type", ["Mul", "Div"])
@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1), (4, 4, 4)])
def test_a_factor_for_each_channel_takes_any_scales_and_gives_any(b, op_type, shape):
    x = unfolded(b)
    y = b.op(op_type, x, b.const(np.abs(b.random(*shape)) + 0.5))
    classes = check(b, b.head(y))
    assert free(classes, x) == free(classes, y) == 4
    assert not set(ids(classes, y)) & set(ids(classes, x))


def test_a_factor_for_each_channel_frees_what_follows_an_input(b):
    y = b.op("Mul", b.input(4, 4, 4), b.const(b.random(4, 1, 1)))
    classes = check(b, b.head(b.conv(y, 2)))
    assert free(classes, y) == 4


def test_where_ties_its_branches(b):
    x = b.input(3, 4, 4)
    yes, no = b.conv(x, 4), b.conv(x, 4)
    mask = b.op("Greater", x, b.const(np.float32(0)), shape=(3, 4, 4))
    mask = b.op("Slice", mask, b.ints(0), b.ints(1), b.ints(1), shape=(1, 4, 4))
    y = b.op("Where", mask, yes, no, shape=(4, 4, 4))
    z = b.op("Where", mask, y, b.const(np.float32(0.5)), shape=(4, 4, 4))
    classes = check(b, b.head(z))
    assert np.array_equal(ids(classes, yes), ids(classes, no))
    assert free(classes, z) == 4


# --- normalization -----------------------------------------------------------------------------


def test_batch_normalization_left_unfolded_decouples(b):
    x = b.op("Relu", b.conv(b.input(3, 4, 4), 4))
    y = b.batch_norm(x)
    classes = check(b, b.head(b.op("Relu", y)))
    assert free(classes, x) == free(classes, y) == 4
    assert not set(ids(classes, x)) & set(ids(classes, y))


def test_batch_norms_after_another(b):
    x = b.batch_norm(b.batch_norm(b.op("Relu", b.conv(b.input(3, 4, 4), 4))))
    classes = check(b, b.head(x))
    assert free(classes, x) == 4


@pytest.mark.parametrize("size", [1, 2])
def test_layer_norm_frees_its_output_and_pins_its_input(b, size):
    x = b.matmul(b.input(5, 3), 6)
    shape = (5, 6)[-size:]
    scale, shift = b.const(b.random(*shape)), b.const(b.random(*shape))
    y = b.op("LayerNormalization", x, scale, shift, axis=-size)
    classes = check(b, b.matmul(b.op("Relu", y), 3))
    assert pinned(classes, x)
    assert reason(classes, x) == {"its ε pins the input"}
    # Over two axes MatMul needs the scales of each column to agree.
    assert free(classes, y) == 6


def test_instance_norm(b):
    x = b.conv(b.input(3, 4, 4), 4)
    y = b.op("InstanceNormalization", x, b.const(b.random(4)), b.const(b.random(4)))
    classes = check(b, b.head(y))
    assert pinned(classes, x)
    assert free(classes, y) == 4


# --- activations and clips ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op_type", "attributes"),
    [
        ("Relu", {}), ("LeakyRelu", {"alpha": 0.1}), ("LeakyRelu", {"alpha": -0.3}), ("Abs", {}),
        ("Neg", {}),
    ],
)  # fmt: skip
def test_homogeneous_activations_pass(b, op_type, attributes):
    x = b.conv(b.input(3, 4, 4), 4)
    y = b.op(op_type, x, **attributes)
    classes = check(b, b.head(y))
    assert np.array_equal(ids(classes, y), ids(classes, x))
    assert free(classes, y) == 4


@pytest.mark.parametrize("shape", [(1,), (4, 1, 1), (4, 4, 4)])
def test_prelu_passes_with_slopes_of_either_sign(b, shape):
    x = b.conv(b.input(3, 4, 4), 4)
    y = b.op("PRelu", x, b.const(b.random(*shape)))
    classes = check(b, b.head(y))
    assert free(classes, y) == 4


def test_prelu_with_a_slope_computed_at_run_time(b):
    x = b.input(3, 4, 4)
    conv = b.conv(x, 3)
    slope = b.op("ReduceMean", x, axes=[0], keepdims=0, shape=())
    classes = check(b, b.head(b.op("PRelu", conv, slope)))
    assert reason(classes, conv) == {"its slope is computed at run time"}


@pytest.mark.parametrize(
    "op_type", ["Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Softmax", "Elu", "Erf"]
)
def test_barriers_say_so(b, op_type):
    x = b.conv(b.input(3, 4, 4), 4)
    classes = check(b, b.head(b.op(op_type, x)))
    assert pinned(classes, x)
    assert reason(classes, x) == {f"{op_type} is not homogeneous"}


def test_an_operator_without_a_row_is_a_barrier(b):
    x = b.conv(b.input(3, 4, 4), 4)
    classes = check(b, b.head(b.op("Softsign", x)))
    assert reason(classes, x) == {"Softsign has no row in the operator table"}


@pytest.mark.parametrize("how", ["initializer", "Constant node", "attribute 6", "attribute 10"])
@pytest.mark.parametrize("bounds", [(0.0, 6.0), (-1.0, 1.0), (0.5, 3.0), (-2.0, -0.5)])
def test_clip_bounds_wherever_they_are_written(b, how, bounds):
    kind, _, opset = how.partition(" ")
    # The converter of opset 6 refuses a batch of unknown size.
    batch = 2 if opset == "6" else b.batch
    b = Builder(opset=int(opset) if opset.isdigit() else 13, batch=batch)
    x = b.conv(b.input(3, 4, 4), 4)
    if kind == "attribute":
        y = b.op("Clip", x, min=bounds[0], max=bounds[1])
    else:
        y = b.clip(x, *bounds, how=b.const if kind == "initializer" else b.constant_node)
    classes = check(b, b.head(y))
    assert [site.bounds for site in classes.clips] == [bounds]
    assert free(classes, x) == 4


@pytest.mark.parametrize("bounds", [(0.0, None), (None, 0.0), (0.0, np.inf), (None, None)])
def test_clips_that_do_not_saturate_pass(b, bounds):
    x = b.conv(b.input(3, 4, 4), 4)
    classes = check(b, b.head(b.clip(x, *bounds)))
    assert not classes.clips
    assert free(classes, x) == 4


def test_clip_bounds_computed_at_run_time(b):
    x = b.input(3, 4, 4)
    conv = b.conv(x, 4)
    bound = b.op("ReduceMax", x, keepdims=0, shape=())
    y = b.op("Clip", conv, "", bound)
    classes = check(b, b.head(y))
    assert reason(classes, conv) == {"its bounds are computed at run time"}


def test_clips_as_barriers():
    b = Builder()
    x = b.conv(b.input(3, 4, 4), 4)
    classes = find_classes(Graph(b.model(b.head(b.clip(x)))), clips_pass=False)
    assert pinned(classes, x)
    assert reason(classes, x) == {"Clip saturates and --relu6 skip makes it a barrier"}


def test_uniform_scales_keep_the_clip():
    b = Builder()
    x = b.clip(b.conv(b.input(3, 4, 4), 4))
    model = b.model(b.head(x))
    classes = find_classes(Graph(model))
    exponents = {int(root): 2.0 for root in classes.free}
    scaled, added = apply_scales(Graph(model), classes, exponents)
    assert added == 0
    assert "Clip" in {node.op_type for node in scaled.proto.graph.node}
    feeds = random_feeds(model)
    assert same_outputs(model, scaled, feeds, optimize=False)
    assert same_outputs(model, scaled, feeds, optimize=True)


def test_relu6_per_channel_adds_one_kernel():
    b = Builder()
    x = b.clip(b.conv(b.input(3, 4, 4), 4))
    model = b.model(b.head(x))
    classes = find_classes(Graph(model))
    scaled, added = apply_scales(Graph(model), classes, random_exponents(classes))
    assert added == 1
    assert [n.op_type for n in scaled.proto.graph.node][1:3] == ["Relu", "Min"]


def test_min_and_max_as_relu6_are_one(b):
    x = b.conv(b.input(3, 4, 4), 4)
    y = b.op("Max", b.const(np.float32(0)), x, shape=(4, 4, 4))
    y = b.op("Min", y, b.const(np.float32(6)))
    model = b.model(b.head(y))
    assert [n.op_type for n in model.proto.graph.node][:2] == ["Conv", "Clip"]
    classes = assert_exact(model)
    assert free(classes, y) == 4
    scaled, added = apply_scales(Graph(model), classes, random_exponents(classes))
    assert added == 1
    assert [n.op_type for n in scaled.proto.graph.node][1:3] == ["Relu", "Min"]


# --- padding, resizing, old operator sets ------------------------------------------------------


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
def test_padding_in_space_passes(b, mode):
    x = b.conv(b.input(3, 4, 4), 4)
    y = b.op("Pad", x, b.ints(0, 0, 1, 2, 0, 0, 0, 1), mode=mode, shape=(4, 5, 7))
    classes = check(b, b.head(y))
    assert free(classes, x) == 4


def test_padding_with_another_value_is_a_barrier(b):
    x = b.conv(b.input(3, 4, 4), 4)
    y = b.op("Pad", x, b.ints(0, 0, 1, 2, 0, 0, 0, 1), b.const(np.float32(1)), shape=(4, 5, 7))
    classes = check(b, b.head(y))
    assert reason(classes, x) == {"it pads with a value other than 0"}


def test_padding_the_channels_ties_them(b):
    x = b.conv(b.input(3, 4, 4), 4)
    y = b.op("Pad", x, b.ints(0, 2, 0, 0, 0, 0, 0, 0), shape=(6, 4, 4))
    classes = check(b, b.head(y))
    assert free(classes, x) == 1


def test_pad_2():
    b = Builder(opset=10)
    x = b.conv(b.input(3, 4, 4), 4)
    y = b.op("Pad", x, pads=[0, 0, 1, 1, 0, 0, 1, 1], shape=(4, 6, 6))
    classes = check(b, b.head(y))
    assert free(classes, y) == 4


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_upsample(mode):
    b = Builder(opset=9)
    x = b.conv(b.input(3, 4, 4), 4)
    scales = b.const(np.array([1, 1, 2, 2], np.float32))
    y = b.op("Upsample", x, scales, mode=mode, shape=(4, 8, 8))
    model = b.model(b.head(y))
    classes = assert_exact(model)
    assert free(classes, output_of(model, "Resize")) == 4


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize(b, mode):
    x = b.conv(b.input(3, 4, 4), 4)
    scales = b.const(np.array([1, 1, 2, 1.5], np.float32))
    y = b.op("Resize", x, "", scales, mode=mode, shape=(4, 8, 6))
    classes = check(b, b.head(y))
    assert free(classes, x) == 4


def test_resizing_the_channels_ties_them_even_where_their_number_stays(b):
    """A scale of 1.2 makes 4 channels of 4, each of them a mixture."""
    x = b.conv(b.input(3, 4, 4), 4)
    y = b.op("Reshape", x, b.ints(0, 1, 4, 16), shape=(1, 4, 16))
    scales = b.const(np.array([1, 1, 1.2, 2], np.float32))
    y = b.op("Resize", y, "", scales, mode="linear", shape=(1, 4, 32))
    y = b.op("Reshape", y, b.ints(0, 4, 4, 8), shape=(4, 4, 8))
    classes = check(b, b.head(y))
    assert free(classes, x) == 1


def test_a_crop_may_not_fill_with_another_value(b):
    x = b.conv(b.input(3, 4, 4), 4)
    roi = b.const(np.array([0, 0, -0.5, 0, 1, 1, 1, 1], np.float32))
    scales = b.const(np.array([1, 1, 2, 2], np.float32))
    y = b.op(
        "Resize", x, roi, scales, mode="linear", shape=(4, 8, 8), extrapolation_value=1.0,
        coordinate_transformation_mode="tf_crop_and_resize",
    )  # fmt: skip
    classes = check(b, b.head(y))
    assert pinned(classes, x)
    assert reason(classes, x) == {"it fills with an extrapolation value other than 0"}


# --- what reads the tensors --------------------------------------------------------------------


def test_a_graph_output_in_mid_chain_pins(b):
    first = b.conv(b.input(3, 4, 4), 4)
    second = b.conv(b.op("Relu", first), 4)
    classes = check(b, first, b.head(second))
    assert pinned(classes, first)
    assert reason(classes, first) == {"graph output"}
    assert free(classes, second) == 4


def test_what_a_subgraph_reads_is_pinned(b):
    x = b.input(3, 4, 4)
    conv = b.conv(x, 4)
    relu = b.op("Relu", conv)
    condition = b.op("ReduceMax", x, keepdims=0, shape=())
    condition = b.op("Greater", condition, b.const(np.float32(0.5)), shape=())
    branches = [
        helper.make_graph(
            [helper.make_node(op, [conv], [f"{op}_out"], name=op)], op, [],
            [helper.make_tensor_value_info(f"{op}_out", TensorProto.FLOAT, None)],
        )
        for op in ("Neg", "Abs")
    ]  # fmt: skip
    chosen = b.op(
        "If", condition, shape=(4, 4, 4), then_branch=branches[0], else_branch=branches[1]
    )
    classes = check(b, b.head(relu), chosen)
    assert pinned(classes, conv)
    assert reason(classes, conv) == {"read by a subgraph"}


def test_shape_does_not_constrain(b):
    x = b.conv(b.input(3, 4, 4), 4)
    size = b.op("Cast", b.op("Shape", x, shape=()), to=TensorProto.FLOAT, shape=())
    classes = check(b, b.head(x), size)
    assert free(classes, x) == 4


@pytest.mark.parametrize(("axis", "count"), [(1, 1), (2, 4)])
def test_comparisons_tie_what_they_compare_and_let_no_scale_out(b, axis, count):
    x = b.conv(b.input(3, 4, 4), 4)
    shape = tuple(1 if i == axis else 4 for i in (1, 2, 3))
    y = b.op("Cast", b.op("ArgMax", x, axis=axis, shape=shape), to=TensorProto.FLOAT, shape=shape)
    classes = check(b, b.head(x), b.op("Mul", y, b.op("Sign", x), shape=(4, 4, 4)))
    assert free(classes, x) == count


def test_indices_and_other_integers_are_a_barrier(b):
    x = b.conv(b.input(3, 4, 4), 4)
    y = b.op("Cast", x, to=TensorProto.INT64)
    y = b.op("Cast", y, to=TensorProto.FLOAT)
    classes = check(b, b.head(x), y)
    assert pinned(classes, x)


def test_a_constant_product_too_large_to_fold_is_no_crash(b):
    x = b.conv(b.input(3, 4, 4), 4)
    value = b.op("Mul", b.const(b.random(4, 1, 1)), b.const(b.random(4, 1, 1)), shape=())
    proto = b.proto(b.head(b.op("Add", x, value, shape=(4, 4, 4))))
    classes = find_classes(Graph(Model(proto)))
    assert pinned(classes, x)


def test_new_tensors_get_names_of_their_own():
    """A tool that merges equal initializers may leave one `first.1.equalized` for many readers."""
    b = Builder()
    x = b.input(4, 4, 4)
    weight = b.const(b.random(4, 4, 1, 1), "first.1.equalized")
    first = b.conv(x, 4, weight=weight, name="first")
    pinned_conv = b.conv(x, 4, weight=weight)
    model = b.model(b.head(b.op("Relu", first)), pinned_conv)
    assert free(assert_exact(model), first) == 4
    scaled, _ = apply_scales(
        Graph(model), find_classes(Graph(model)), random_exponents(find_classes(Graph(model)))
    )
    names = [t.name for t in scaled.proto.graph.initializer]
    assert len(names) == len(set(names))
    assert {"first.1.equalized", "first.1.equalized_2"} <= set(names)
