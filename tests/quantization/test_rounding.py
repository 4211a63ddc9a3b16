"""Adaptive rounding: the closed form by its algebra, columns and moments by what nodes compute."""

import numpy as np
import onnx
import onnxq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxq.api import calibrate
from onnxq.formats.table import Uniform
from onnxq.model.graph import Graph, Place
from onnxq.model.model import Model
from onnxq.model.normalize import normalize
from onnxq.model.operators import weight_layout
from onnxq.quantization import rounding
from onnxq.quantization.collect import collect_moments
from onnxq.quantization.columns import Columns, refusal_of
from onnxq.quantization.insert import insert
from onnxq.quantization.moments import Moments
from onnxq.quantization.plan import QuantizationOptions
from onnxq.quantization.planning import plan_quantization
from onnxq.quantization.sequential import settle_layers
from onnxq.targets.read import SHIPPED, target_named

from support.builder import Builder
from support.random_graphs import GRAPHS, random_feeds, random_models
from support.running import outputs

LIMITS = Uniform(-127, 127)

targets = pytest.mark.parametrize("target", SHIPPED)
# The others differ from these in rows only.
unlike_targets = pytest.mark.parametrize("target", ["gpu", "cpu", "qnn"])


# --- columns -------------------------------------------------------------------------------------


def node_model(kind):
    """One weighted node with a bias where it can have one, and the shape of its input."""
    b = Builder(4, spread=1)
    conv = {"pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2], "kernel_shape": [3, 2]}
    if kind == "conv 1d":
        y = b.op("Conv", b.input(6, 9), b.const(b.random(4, 6, 3)), b.const(b.random(4)),
                 name="node", shape=(4, 7), kernel_shape=[3])  # fmt: skip
    elif kind.startswith("conv"):
        group = {"conv": 1, "conv grouped": 3, "conv depthwise": 6, "conv same": 2}[kind]
        out = 12
        if kind == "conv same":
            conv = {"auto_pad": "SAME_UPPER", "strides": [2, 2], "kernel_shape": [3, 2]}
        weight = b.const(b.random(out, 6 // group, 3, 2))
        y = b.op("Conv", b.input(6, 7, 8), weight, b.const(b.random(out)), name="node",
                 shape=(out, 1, 1), group=group, **conv)  # fmt: skip
    elif kind == "transposed":
        weight = b.const(b.random(6, 2, 3, 2))
        y = b.op("ConvTranspose", b.input(6, 4, 5), weight, b.const(b.random(6)), name="node",
                 shape=(6, 1, 1), group=3, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 0, 1],
                 output_padding=[1, 0])  # fmt: skip
    elif kind == "matmul":
        y = b.matmul(b.input(5, 6), 4, name="node")
    else:
        y = b.gemm(b.input(6), 4, trans_b=int(kind[-1]), name="node")
    return b.model(y)


def output_major(layout, weight):
    """(groups, outputs per group, columns)."""
    return layout.to_output_major(np.asarray(weight, np.float64)).reshape(
        layout.groups, layout.outputs // layout.groups, -1
    )


KINDS = ["conv", "conv grouped", "conv depthwise", "conv same", "conv 1d", "transposed", "matmul",
         "gemm 0", "gemm 1"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_weight_times_columns_is_what_the_node_computes(kind):
    model = node_model(kind)
    graph = Graph(model)
    node = graph.by_name["node"]
    layout = weight_layout(graph, node)
    feeds = random_feeds(model, batch=5)
    (y,) = outputs(model, feeds, optimize=False)
    y = np.moveaxis(y, layout.output_axis, 1).reshape(5, layout.outputs, -1)
    index = np.random.default_rng(0).integers(0, y.shape[2], (5, 3))
    found = Columns(graph, node, layout).of(feeds["x"], index)
    columns = found.reshape(*found.shape[:2], 15)
    product = output_major(layout, graph.constant(layout.weight)) @ columns
    wanted = np.take_along_axis(y, index[:, None], 2)
    if layout.bias:
        wanted = wanted - graph.constant(layout.bias).reshape(1, -1, 1)
    wanted = wanted.transpose(1, 0, 2).reshape(product.shape)
    assert refusal_of(graph, node, layout) is None
    assert np.allclose(product, wanted, atol=1e-5)


def test_a_gemm_of_a_transposed_input():
    b = Builder(4, batch=3)
    y = b.op("Gemm", b.input(7), b.const(b.random(3, 4)), shape=(4,), transA=1, name="node")
    model = b.model(y)
    graph = Graph(model)
    layout = weight_layout(graph, graph.by_name["node"])
    x = random_feeds(model)["x"]
    columns = Columns(graph, graph.by_name["node"], layout).of(x, np.zeros((7, 1), np.int64))
    assert np.array_equal(columns[0, :, :, 0], x)


def test_stacked_and_huge_weights_are_left_alone():
    b = Builder(1)
    stacked = b.op("MatMul", b.input(2, 3, 6), b.const(b.random(2, 6, 4)), shape=(2, 3, 4))
    b.op("Gemm", b.op("Flatten", b.input(5000, name="z")), b.const(b.random(5000, 1)),
         shape=(1,), name="huge")  # fmt: skip
    graph = Graph(b.model(stacked, "huge"))
    reasons = {
        node.name: str(refusal_of(graph, node, weight_layout(graph, node)))
        for node in graph.nodes
        if node.op_type in {"MatMul", "Gemm"}
    }
    assert "stack of matrices" in reasons[stacked]
    assert "5,000 inputs" in reasons["huge"]


def test_a_layer_that_transposes_its_input_is_rounded_to_nearest():
    b = Builder(4, batch=7)
    y = b.op("Gemm", b.input(5), b.const(b.random(7, 4)), name="node", transA=1, shape=(4,))
    proto = b.proto(y)
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 5
    _, result = onnxq.quantize(Model(proto), "random:6", target="cpu", scheme="w8")
    assert all("in front" in str(each.reason) for each in result.roundings)
    assert result.roundings


# --- moments -------------------------------------------------------------------------------------


def exact_moments(x, t, *, centered=False):
    """Of columns (groups, columns, n) and targets (groups, outputs, n)."""
    x = np.concatenate([x, np.ones_like(x[:, :1])], axis=1)
    across = x.swapaxes(1, 2)
    return Moments(x @ across, t @ across, np.square(t).sum(axis=2), centered)


@pytest.mark.parametrize("pending", [1, 1 << 23])
@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("kind", ["conv grouped", "gemm 1", "matmul"])
def test_the_error_by_moments_is_the_measured_one(kind, centered, pending, monkeypatch):
    monkeypatch.setattr("onnxq.quantization.collect.PENDING", pending)
    model = node_model(kind)
    graph = Graph(model)
    node = graph.by_name["node"]
    layout = weight_layout(graph, node)
    batches = [random_feeds(model, seed, batch=3)["x"] for seed in range(4)]
    exact = [outputs(model, {"x": x}, optimize=False)[0] for x in batches]
    noisy = [x + np.float32(0.1) * np.sin(9 * x) + np.float32(0.2) for x in batches]
    other = [outputs(model, {"x": x}, optimize=False)[0] for x in noisy]
    halves = collect_moments(
        layout, Columns(graph, node, layout), noisy,
        [y - bias_of(graph, layout, y.ndim) for y in exact], centered=centered,
    )  # fmt: skip
    weight = output_major(layout, graph.constant(layout.weight))
    for half, moments in enumerate(halves):
        error = np.concatenate(exact)[half::2] - np.concatenate(other)[half::2]
        if centered:
            others = tuple(a for a in range(error.ndim) if a != layout.output_axis % error.ndim)
            error = error - error.mean(axis=others, keepdims=True)
        assert moments.error(weight) == pytest.approx(np.square(error).mean(), rel=1e-3)


def bias_of(graph, layout, rank):
    if not layout.bias:
        return np.float32(0)
    shape = [1] * rank
    shape[layout.output_axis] = -1
    return graph.constant(layout.bias).reshape(shape)


def test_one_sample_has_no_half_to_decide_on():
    model = node_model("gemm 1")
    graph = Graph(model)
    node = graph.by_name["node"]
    layout = weight_layout(graph, node)
    x = random_feeds(model, batch=1)["x"]
    columns = Columns(graph, node, layout)
    y = outputs(model, {"x": x}, optimize=False)
    assert collect_moments(layout, columns, [x], y, centered=True) is None


@pytest.mark.parametrize("centered", [True, False])
def test_moments_of_padded_samples_are_those_of_their_real_positions(centered):
    """Positions of a sample are few enough for all to be looked at; padding holds large values."""
    rng = np.random.default_rng(0)
    model = node_model("matmul")
    graph = Graph(model)
    node = graph.by_name["node"]
    layout, columns = weight_layout(graph, node), Columns(graph, node, weight_layout(graph, node))
    x = rng.standard_normal((12, 5, 6)).astype(np.float32)
    real = np.arange(5) < rng.integers(1, 6, 12)[:, None]
    t = np.asarray(x @ graph.constant(layout.weight))
    bad = [np.where(real[..., None], v, np.float32(50)) for v in (x, t)]
    kept = real[..., None]
    masked = collect_moments(
        layout, columns, [bad[0][:8], bad[0][8:]], [bad[1][:8], bad[1][8:]], centered=centered,
        real=[kept[:8], kept[8:]],
    )  # fmt: skip
    singles = [[v[row : row + 1, :length] for row, length in enumerate(real.sum(axis=1))]
               for v in (x, t)]  # fmt: skip
    wanted = collect_moments(layout, columns, *singles, centered=centered)
    other = graph.constant(layout.weight) + 0.1 * rng.standard_normal(layout.shape)
    for mine, each in zip(masked, wanted, strict=True):
        assert mine.count == each.count
        assert np.allclose(mine.metric, each.metric, atol=1e-4)
        error = each.error(output_major(layout, other))
        assert mine.error(output_major(layout, other)) == pytest.approx(error, rel=1e-3)


def test_samples_of_nothing_but_padding_cannot_decide():
    model = node_model("matmul")
    graph = Graph(model)
    node = graph.by_name["node"]
    layout, columns = weight_layout(graph, node), Columns(graph, node, weight_layout(graph, node))
    x = np.ones((2, 5, 6), np.float32)
    real = np.array([[True] * 5, [False] * 5])[..., None]
    t = np.ones((2, 5, 4), np.float32)
    assert collect_moments(layout, columns, [x], [t], centered=False, real=[real]) is None


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
def test_few_positions_of_many_columns_lose_nothing(groups, centered, monkeypatch):
    """The basis of what they span gives the same errors, weights and metric."""
    rng = np.random.default_rng(0)
    b = Builder(1, spread=1)
    weight = b.const(b.random(6, 40 // groups, 1, 1))
    y = b.op("Conv", b.input(40, 1, 1), weight, name="node", shape=(6, 1, 1), group=groups)
    graph = Graph(b.model(y))
    node = graph.by_name["node"]
    layout = weight_layout(graph, node)
    x = rng.standard_normal((9, 40, 1, 1)).astype(np.float32) + np.float32(3)
    (t,) = outputs(graph.model, {"x": x}, optimize=False)
    columns = Columns(graph, node, layout)
    noisy = x + np.float32(0.1) * rng.standard_normal(x.shape).astype(np.float32)

    few = collect_moments(layout, columns, [noisy], [t], centered=centered)
    monkeypatch.setattr("onnxq.quantization.collect.FEW", 1000)
    many = collect_moments(layout, columns, [noisy], [t], centered=centered)
    assert few[0].basis.shape == (groups, 40 // groups, 9)
    assert many[0].basis is None
    weights = output_major(layout, graph.constant(layout.weight))
    other = weights + 0.1 * rng.standard_normal(weights.shape)
    for a, c in (*zip(few, many, strict=True), (few[0] + few[1], many[0] + many[1])):
        assert np.allclose(a.metric, c.metric, atol=1e-5)
        assert np.allclose(a.power_of_input, c.power_of_input, rtol=1e-5)
        assert a.error(other) == pytest.approx(c.error(other), rel=1e-4)
        found, wanted = (rounding.refit(weights, m, 0.01) for m in (a, c))
        assert np.allclose(found, wanted, atol=1e-4)
        assert not np.allclose(found, weights, atol=1e-3)


@pytest.mark.parametrize("large", [1.0, 1e15], ids=["ordinary", "squares beyond float32"])
def test_sums_of_very_many_columns_take_half_the_memory(large, monkeypatch):
    rng = np.random.default_rng(0)
    b = Builder(1, spread=1)
    y = b.op("MatMul", b.input(6), b.const(b.random(6, 4)), name="node", shape=(4,))
    graph = Graph(b.model(y))
    layout = weight_layout(graph, graph.by_name["node"])
    columns = Columns(graph, graph.by_name["node"], layout)
    x = rng.standard_normal((90, 6)).astype(np.float32) * np.float32(large)
    t = rng.standard_normal((90, 4)).astype(np.float32)
    monkeypatch.setattr("onnxq.quantization.collect.PENDING", 100)

    def sums():
        first, second = collect_moments(layout, columns, [x], [t], centered=True)
        return first + second

    usual = sums()
    monkeypatch.setattr("onnxq.quantization.collect.WIDE", 6)
    wide = sums()
    assert usual.gram.dtype == np.float64
    assert wide.gram.dtype == (np.float32 if large == 1 else np.float64)
    assert wide.inputs.dtype == np.float64
    assert np.allclose(wide.inputs, usual.inputs, rtol=1e-5, atol=1e-6 * large**2)
    assert np.allclose(wide.targets, usual.targets, rtol=1e-5, atol=1e-6 * large)
    assert np.allclose(wide.noise, usual.noise, rtol=1e-6)


# --- the closed form -----------------------------------------------------------------------------


@st.composite
def problems(draw):
    """A weight, steps, and inputs and targets that are more or less what the weight makes of them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    groups, rows, columns = (draw(st.integers(1, n)) for n in (3, 4, 9))
    samples = draw(st.integers(2, 40))
    mixing = rng.standard_normal((groups, columns, columns)) * draw(st.floats(0, 3))
    x = (mixing + np.eye(columns)) @ rng.standard_normal((groups, columns, samples))
    x *= draw(st.sampled_from([0.0, 1e-3, 1.0, 1e3]))
    weight = rng.standard_normal((groups, rows, columns))
    t = weight @ (x + draw(st.floats(0, 0.5)) * rng.standard_normal(x.shape))
    step = np.abs(weight).max(axis=2, keepdims=True) / draw(st.sampled_from([3, 20, 127]))
    return weight, step, exact_moments(x, t, centered=draw(st.booleans()))


@given(problems())
def test_what_is_kept_is_never_worse_than_nearest(problem):
    weight, step, moments = problem
    integers, adaptive, error_nearest, error_adaptive = rounding.choose_rounding(
        weight, step, moments, moments, LIMITS
    )
    nearest = np.clip(np.rint(weight / step), -127, 127)
    assert np.array_equal(integers, np.rint(integers))
    assert np.abs(integers).max() <= 127
    assert error_nearest == moments.error(nearest * step)
    assert moments.error(integers * step) <= error_nearest
    assert adaptive or np.array_equal(integers, nearest)
    assert not adaptive or error_adaptive < error_nearest


@given(problems())
def test_independent_inputs_are_rounded_to_nearest(problem):
    weight, step, moments = problem
    diagonal = np.einsum("gii->gi", moments.inputs)[:, :, None] * np.eye(weight.shape[2])
    found = rounding.round_in_order(weight / step, diagonal, LIMITS)
    assert np.array_equal(found, np.clip(np.rint(weight / step), -127, 127))


@given(problems())
def test_groups_are_rounded_each_for_itself(problem):
    weight, step, moments = problem
    together = rounding.round_in_order(weight / step, moments.inputs, LIMITS)
    alone = [
        rounding.round_in_order(w[None], gram[None], LIMITS)[0]
        for w, gram in zip(weight / step, moments.inputs, strict=True)
    ]
    # Sums of another shape may be added in another order, which moves a tie.
    assert np.mean(together != np.stack(alone)) < 0.05


def test_steps_that_differ_by_column_are_those_of_another_metric():
    """Steps s and the metric H give what steps of 1 and s·H·s do, undamped."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((1, 12, 300)) * np.arange(1, 13)[:, None]
    gram, values = x @ x.swapaxes(1, 2), rng.standard_normal((1, 5, 12)) * 9
    step = rng.uniform(0.99, 1.01, (1, 1, 12))
    found = rounding.round_in_order(values, gram, LIMITS, 0.0, step, 0.0)
    scaled = gram * step.swapaxes(1, 2) * step
    assert np.array_equal(found, rounding.round_in_order(values / step, scaled, LIMITS, damping=0))
    assert not np.array_equal(found, rounding.round_in_order(values, gram, LIMITS, damping=0))


def test_zero_points_that_differ_limit_each_weight():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((1, 8, 60))
    gram, values = x @ x.swapaxes(1, 2), rng.standard_normal((1, 30, 8)) * 9
    zero = rng.integers(0, 16, values.shape).astype(float)
    limits = rounding.Limits(-zero, 15 - zero)
    found = rounding.round_in_order(values, gram, limits)
    assert np.all((found + zero >= 0) & (found + zero <= 15))
    assert {0.0, 15.0} <= set((found + zero).ravel())


def test_rounding_errors_of_like_inputs_cancel():
    """Two inputs that are nearly the same: what counts is the sum of their weights."""
    gram = np.array([[[1.0, 0.99], [0.99, 1.0]]])
    values = np.array([[[10.4, 7.4], [3.3, -3.3]]])
    found = rounding.round_in_order(values, gram, LIMITS)
    assert found.sum(axis=2).tolist() == [[18.0, 0.0]]
    assert np.all(np.abs(found - values) < 1)


def test_blocks_do_not_change_the_result(monkeypatch):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((1, 40, 100)) + rng.standard_normal((1, 1, 100))
    gram, values = x @ x.swapaxes(1, 2), rng.standard_normal((1, 6, 40)) * 20
    whole = rounding.round_in_order(values, gram, LIMITS)
    monkeypatch.setattr(rounding, "TOGETHER", 7)
    assert np.array_equal(rounding.round_in_order(values, gram, LIMITS), whole)


@given(problems(), st.sampled_from(rounding.STRENGTHS))
def test_the_refit_is_where_the_penalized_error_is_least(problem, strength):
    weight, _, moments = problem
    fitted = rounding.refit(weight, moments, strength)
    pull = strength * np.einsum("gii->g", moments.inputs) / weight.shape[2] + moments.noise
    pull = np.where(pull > 0, pull, 1.0)[:, None, None]
    slope = fitted @ moments.inputs - moments.targets + pull * (fitted - weight)
    size = np.abs(moments.targets).max() + np.abs(weight @ moments.inputs).max()
    assert np.abs(slope).max() <= 1e-7 * size
    assert np.array_equal(rounding.refit(weight, moments, np.inf), weight)


def test_the_refit_makes_up_for_noisy_inputs():
    """Least squares shrinks the weight of an input that is half noise (Wiener)."""
    rng = np.random.default_rng(0)
    signal, noise = rng.standard_normal((2, 1, 1, 100_000))
    moments = exact_moments(signal + noise, signal)
    found = rounding.refit(np.ones((1, 1, 1)), moments, rounding.STRENGTHS[-1])
    assert found.item() == pytest.approx(0.5, abs=0.01)


def test_a_layer_behind_a_clipped_tensor_does_not_bring_back_what_was_clipped():
    """What is clipped goes along with another channel: a refit would read it from there."""
    b = Builder(6, spread=0)
    weight = np.array([[1.0, 0.02], [0.5, 0.01]], np.float32)
    y = b.op("MatMul", b.input(2), b.const(weight), shape=(2,), name="layer")
    model = b.model(y)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((512, 2)).astype(np.float32)
    x[:, 0], x[:, 1] = np.where(x[:, 0] > 1.5, 20, x[:, 0]), np.where(x[:, 0] > 1.5, 2, x[:, 1])
    statistics = calibrate(model, {"x": x})
    options = QuantizationOptions()
    plan = plan_quantization(
        Graph(model), statistics, target_named("gpu"), options, fixed={"x": (-2.5, 2.5)}
    )
    settled = [
        settle_layers(model, plan, [{"x": x}], adaptive=True, correct=False, clipped=clipped)
        for clipped in ({}, {"x": (-2.5, 2.5)})
    ]
    place = Place("layer", 1)
    (made_up,), (own,) = ([each.weights.get(place)] for each in settled)
    scale = float(np.max(plan.weights[place].scale))
    # The step of a weight is far smaller than what the refit would change.
    assert made_up is not None
    assert np.abs(made_up * plan.weights[place].scale - weight).max() > 10 * scale
    own = own if own is not None else np.rint(weight / plan.weights[place].scale)
    assert np.abs(own * plan.weights[place].scale - weight).max() < 2 * scale


@pytest.mark.parametrize("shape", [(2,), (3, 2)], ids=["its own", "of a node behind it"])
def test_nor_does_its_bias(shape):
    """A few values that are cut off must not move all others."""
    b = Builder(6, spread=0)
    x, weight = b.input(*shape), b.const(np.array([[1.0, 0.5], [0.5, 1.0]], np.float32))
    product = b.op("MatMul", x, weight, shape=shape, name="layer")
    model, _ = normalize(b.model(b.op("Add", product, b.const(np.ones(2)), shape=shape)))
    values = np.random.default_rng(0).uniform(-1, 1, (511, *shape)).astype(np.float32)
    values[::7] = 40
    clip = {"x": (-1.0, 1.0)}
    plan = plan_quantization(
        Graph(model), calibrate(model, {"x": values}), target_named("gpu"),
        QuantizationOptions(), fixed=clip,
    )  # fmt: skip
    made_up, own = (
        settle_layers(model, plan, [{"x": values}], adaptive=False, correct=True, clipped=clipped)
        for clipped in ({}, clip)
    )
    (bias,) = made_up.biases.values()
    # A seventh of the samples lacks 1.5 · 39.
    assert bias == pytest.approx(1 + 1.5 * 39 / 7, rel=0.05)
    assert all(each == pytest.approx(1, abs=0.02) for each in own.biases.values())


def test_an_overfitted_refit_is_not_taken():
    """Fewer samples than inputs fit anything; what the other half shows decides."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((1, 2, 50))

    def sample():
        x = rng.standard_normal((1, 50, 20))
        return exact_moments(x, weight @ x + 3 * rng.standard_normal((1, 2, 20)))

    assert rounding.best_strength(weight, sample(), sample()) >= 0.3


# --- models --------------------------------------------------------------------------------------


def uneven(seed=3):
    """Rows of very different size, which per-tensor weights round coarsely; like inputs."""
    b = Builder(seed, spread=3)
    x = b.op("Relu", b.conv(b.input(3, 8, 8), 16, 3, name="stem"))
    x = b.op("Relu", b.conv(x, 16, 3, group=16, bias=False, name="depthwise"))
    x = b.op("Relu", b.conv_transpose(x, 12, group=2, name="up"))
    x = b.clip(b.conv(x, 8, 3, stride=2, group=4, name="grouped"))
    x = b.op("Flatten", b.op("GlobalAveragePool", x, shape=(8, 1, 1)), shape=(8,))
    x = b.op("Relu", b.gemm(x, 12, name="gemm"))
    return b.model(b.matmul(x, 4, name="matmul"))


def smooth_feeds(model, seed=0, batch=64):
    """Images whose neighbours are alike, as those of the world."""
    x = random_feeds(model, seed, batch=batch)["x"]
    return {"x": (x + np.roll(x, 1, 2) + np.roll(x, 1, 3) + x.mean(axis=1, keepdims=True)) / 2}


def plan_for(model, feeds, target, *, per_channel):
    calibration = calibrate(model, feeds, batch_size=8)
    options = QuantizationOptions(ranges="minmax", per_channel=per_channel)
    return plan_quantization(Graph(model), calibration, target_named(target), options)


def error(model, plan, feeds, settled):
    quantized = insert(model, plan, weights=settled.weights, biases=settled.biases)
    onnx.checker.check_model(quantized.proto)
    (a,), (b,) = (outputs(m, feeds, optimize=False) for m in (model, quantized))
    return float(np.square(a - b, dtype=np.float64).sum())


@targets
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("correct", [True, False])
def test_adaptive_rounding_lowers_the_error_on_unseen_samples(target, per_channel, correct):
    model = uneven()
    feeds = smooth_feeds(model)
    plan = plan_for(model, feeds, target, per_channel=per_channel)
    batches = [{"x": feeds["x"][i : i + 8]} for i in range(0, 64, 8)]
    adaptive = settle_layers(model, plan, batches, adaptive=True, correct=correct)
    nearest = settle_layers(model, plan, batches, adaptive=False, correct=correct)
    assert [record.node for record in adaptive.roundings] == [
        node.name for node in Graph(model).nodes if node.name in plan.weighted
    ]
    assert not nearest.roundings
    assert not nearest.weights
    better = {record.node for record in adaptive.roundings if record.adaptive}
    assert {place.node for place in adaptive.weights} == better
    assert better
    for record in adaptive.roundings:
        assert not record.adaptive or record.error_adaptive < record.error_nearest
    for integers in adaptive.weights.values():
        assert integers.dtype == np.int8
        assert integers.min() >= -127
    fresh = smooth_feeds(model, seed=9)
    assert error(model, plan, fresh, adaptive) < error(model, plan, fresh, nearest)


@unlike_targets
@settings(max_examples=max(GRAPHS // 15, 1))
@given(random_models(spread=1))
def test_random_graphs_are_settled(target, model):
    feeds = random_feeds(model, batch=16)
    plan = plan_for(model, feeds, target, per_channel=True)
    settled = settle_layers(model, plan, [feeds], adaptive=True, correct=True)
    graph = Graph(model)
    assert {record.node for record in settled.roundings} == plan.weighted
    for record in settled.roundings:
        layout = weight_layout(graph, graph.by_name[record.node])
        weight = graph.constant(layout.weight)
        if record.adaptive:
            assert settled.weights[Place(record.node, 1)].shape == weight.shape
            assert not record.reason
        assert np.isnan(record.error_nearest) == bool(record.reason)
    quantized = insert(model, plan, weights=settled.weights, biases=settled.biases)
    onnx.checker.check_model(quantized.proto)
    outputs(quantized, feeds, optimize=True)


@pytest.mark.parametrize(("samples", "batch"), [(1, 1), (2, 1), (9, 4)])
def test_few_samples(samples, batch):
    model = uneven()
    feeds = smooth_feeds(model, batch=samples)
    plan = plan_for(model, feeds, "gpu", per_channel=False)
    batches = [{"x": feeds["x"][i : i + batch]} for i in range(0, samples, batch)]
    settled = settle_layers(model, plan, batches, adaptive=True, correct=True)
    reasons = {record.reason for record in settled.roundings}
    assert reasons == ({"one sample cannot decide"} if samples == 1 else {""})


def test_what_is_constant_far_from_zero_is_no_covariance():
    """Float32 sums of squares of 1000 + a little would leave nothing of the little."""
    b = Builder(2, spread=1)
    model = b.model(b.gemm(b.input(6), 4, name="gemm"))
    graph = Graph(model)
    layout = weight_layout(graph, graph.by_name["gemm"])
    rng = np.random.default_rng(0)
    x = (1000 + 0.01 * rng.standard_normal((400, 6))).astype(np.float32)
    x[:, 3] = 777
    columns = Columns(graph, graph.by_name["gemm"], layout)
    first, second = collect_moments(layout, columns, [x], [x[:, :4]], centered=True)
    found = (first + second).inputs[0]
    assert np.allclose(found, np.cov(x.T.astype(np.float64), bias=True), rtol=1e-3, atol=1e-9)


def test_a_covariance_that_rounding_left_indefinite_is_damped():
    gram = np.array([[[1.0, 1.0], [1.0, 0.9]]])
    assert np.linalg.eigvalsh(gram).min() < 0
    rounded = rounding.round_in_order(np.array([[[0.3, 2.4]]]), gram, LIMITS)
    assert np.array_equal(rounded, np.rint(rounded))
