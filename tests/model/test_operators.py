"""Every row of the operator table, proved in ONNX Runtime. A row without a case fails."""

import math

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from onnxq.equalization.classes import find_classes
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.operators import (
    OPERATORS,
    IntegerForm,
    OffsetRule,
    QuantizedRule,
    Rearrangement,
    ScaleRule,
    clip_bounds,
    degree,
    offset_rule,
    weight_layout,
)
from onnxq.model.session import exact_equal
from onnxq.refusal import Refusal

from support.operators import CASES, IMAGE, Case, Fixture, at, floats


def cases(*rules, forms=()):
    found = []
    for row in OPERATORS.values():
        if (rules and row.scale not in rules) or (forms and row.integer_form not in forms):
            continue
        found += [
            pytest.param(row.op_type, case, id=f"{row.op_type} {case}"[:70])
            for case in CASES.get(row.op_type, ())
        ]
    return pytest.mark.parametrize(("op_type", "case"), found)


def powers(rng, shape):
    return np.exp2(rng.integers(-3, 4, shape)).astype(np.float32)


@pytest.mark.parametrize("op_type", OPERATORS)
def test_every_row_has_a_case(op_type):
    assert CASES.get(op_type)


def test_every_case_has_a_row():
    assert set(CASES) == set(OPERATORS)


OLD_RUNTIME = tuple(int(part) for part in ort.__version__.split(".")[:2]) < (1, 24)


@cases(ScaleRule.HOMOGENEOUS)
def test_homogeneous(op_type, case, rng):
    if OLD_RUNTIME and "noop_with_empty_axes" in str(case):
        pytest.skip("ONNX Runtime before 1.24 does not run noop_with_empty_axes")
    fixture = Fixture(op_type, case)
    feeds = fixture.feeds()
    x = feeds["x0"]
    axes = fixture.row.mixed_axes(fixture.graph, fixture.node, x.ndim)
    if isinstance(axes, Refusal):
        assert not np.any(find_classes(fixture.graph).patterns["y0"])
        return
    scales = powers(rng, [1 if axis in axes else size for axis, size in enumerate(x.shape)])
    (before,) = fixture.run(feeds)
    (after,) = fixture.run({"x0": x * scales})
    kept = scales if before.ndim == x.ndim else scales.squeeze(axes)
    assert exact_equal(after, before * kept)


def elementwise_cases():
    return pytest.mark.parametrize(
        ("op_type", "case"),
        [
            pytest.param(row.op_type, case, id=f"{row.op_type} {case}"[:70])
            for row in OPERATORS.values()
            if row.elementwise
            for case in CASES[row.op_type]
        ],
    )


@elementwise_cases()
def test_by_value(op_type, case, rng):
    """Another value at one place of an operand changes the result at that place alone."""
    fixture = Fixture(op_type, case)
    feeds = fixture.feeds()
    (before,) = fixture.run(feeds)
    for name, x in feeds.items():
        if x.shape != IMAGE:
            continue
        place = tuple(int(rng.integers(size)) for size in IMAGE)
        changed = x.copy()
        changed[place] = 0.3 if abs(x[place]) > 0.5 else 2.5
        (after,) = fixture.run(feeds | {name: changed})
        assert before.shape == after.shape == IMAGE
        elsewhere = np.ones(IMAGE, np.bool_)
        elsewhere[place] = False
        assert exact_equal(after[elsewhere], before[elsewhere])


@cases(ScaleRule.CLIP)
def test_clips_move_with_their_bounds(op_type, case, rng):
    fixture = Fixture(op_type, case)
    feeds = fixture.feeds()
    bounds = clip_bounds(fixture.graph, fixture.node)
    (before,) = fixture.run(feeds)
    saturates = any(bound != 0 and math.isfinite(bound) for bound in bounds)
    scales = powers(rng, (1, 6, 1, 1)) if not saturates else np.float32(4)
    constants = {name: scales * fixture.graph.constant(name) for name in fixture.graph.constants}
    if not saturates:
        constants = {}
    (after,) = fixture.run({"x0": feeds["x0"] * scales}, constants)
    assert exact_equal(after, before * scales)
    if saturates:
        (fixed,) = fixture.run({"x0": feeds["x0"] * scales})
        assert not exact_equal(fixed, before * scales)
    assert bool(find_classes(fixture.graph).clips) is saturates


@cases(ScaleRule.TIE)
def test_tied(op_type, case, rng):
    fixture = Fixture(op_type, case)
    feeds = fixture.feeds()
    data = fixture.row.data_of(fixture.node)
    scales = powers(rng, (1, 6, 1, 1))
    constants = {
        name: fixture.graph.constant(name) * scales
        for name in data
        if fixture.graph.constant(name) is not None
    }
    (before,) = fixture.run(feeds)
    (after,) = fixture.run({name: x * scales for name, x in feeds.items()}, constants)
    assert exact_equal(after, before * scales)
    if len(feeds) > 1:
        (alone,) = fixture.run({**feeds, data[0]: feeds[data[0]] * scales})
        assert not exact_equal(alone, before * scales)


@cases(ScaleRule.PRODUCT)
def test_products_pass_the_scale_of_their_first_factor(op_type, case, rng):
    fixture = Fixture(op_type, case)
    feeds = fixture.feeds()
    scales = powers(rng, IMAGE)
    (before,) = fixture.run(feeds)
    (after,) = fixture.run({**feeds, "x0": feeds["x0"] * scales})
    assert exact_equal(after, before * scales)
    if op_type == "Mul" and "x1" in feeds:
        shared = powers(rng, (1, 6, 1, 1))
        (after,) = fixture.run({**feeds, "x1": feeds["x1"] * shared})
        assert exact_equal(after, before * shared)


@cases(ScaleRule.MOVE)
def test_scales_move_with_the_elements(op_type, case, rng):
    fixture = Fixture(op_type, case)
    feeds = fixture.feeds()
    scales = {name: powers(rng, x.shape) for name, x in feeds.items()}
    before, moved = fixture.run(feeds), fixture.run(scales)
    after = fixture.run({name: x * scales[name] for name, x in feeds.items()})
    assert all(exact_equal(a, b * s) for a, b, s in zip(after, before, moved, strict=True))


@cases(ScaleRule.OBSERVE)
def test_values_do_not_matter(op_type, case, rng):
    fixture = Fixture(op_type, case)
    feeds = fixture.feeds()
    scaled = {"x0": feeds["x0"] * powers(rng, IMAGE)}
    assert exact_equal(fixture.run(feeds)[0], fixture.run(scaled)[0])


@cases(ScaleRule.BARRIER)
def test_barriers_are_not_homogeneous(op_type, case):
    fixture = Fixture(op_type, case)
    x = fixture.feeds()["x0"]
    if fixture.row.power is not None:
        x = np.abs(x)  # a root or logarithm of a negative number is none
    (before,), (after,) = fixture.run({"x0": x}), fixture.run({"x0": x * 2})
    assert np.abs(after - 2 * before).max() > 0.01


@cases(ScaleRule.LINEAR)
def test_weights_absorb_scales_on_both_sides(op_type, case, rng):
    fixture = Fixture(op_type, case)
    feeds = fixture.feeds()
    layout = weight_layout(fixture.graph, fixture.node)
    rows, columns = powers(rng, layout.outputs), powers(rng, layout.inputs)
    weight = layout.to_output_major(fixture.graph.constant(layout.weight))
    scaled = weight * (rows[:, None] / columns[layout.input_index()])[:, :, None]
    constants = {layout.weight: layout.from_output_major(scaled)}
    if layout.bias:
        constants[layout.bias] = fixture.graph.constant(layout.bias) * rows
    (before,) = fixture.run(feeds)
    x = feeds["x0"]
    (after,) = fixture.run({"x0": x * along(columns, x.ndim, layout.input_axis)}, constants)
    assert exact_equal(after, before * along(rows, before.ndim, layout.output_axis))


@cases(ScaleRule.LINEAR)
def test_the_canonical_weight_computes_what_the_operator_does(op_type, case):
    """One output channel and one input channel at a time, against the formula of `weights`."""
    fixture = Fixture(op_type, case)
    layout = weight_layout(fixture.graph, fixture.node)
    weight = fixture.graph.constant(layout.weight)
    by_output = layout.to_output_major(weight)
    assert by_output.shape == (layout.outputs, layout.inputs // layout.groups, layout.taps)
    assert np.array_equal(layout.from_output_major(by_output), weight)
    index = layout.input_index()
    (shape,) = case.shapes[:1]
    for channel in range(layout.inputs):
        x = np.zeros(shape, np.float32)
        x[(slice(None),) * (layout.input_axis % x.ndim) + (channel,)] = 1
        zeros = {layout.bias: 0 * fixture.graph.constant(layout.bias)} if layout.bias else {}
        (y,) = fixture.run({"x0": x}, zeros)
        axes = tuple(a for a in range(y.ndim) if a != layout.output_axis % y.ndim)
        reached = np.abs(y).max(axis=axes, initial=0) > 0
        wired = np.any((index == channel) & np.any(by_output != 0, axis=2), axis=1)
        assert np.array_equal(reached, wired)


@cases(ScaleRule.AFFINE)
def test_scale_and_bias_give_any_scale_to_the_output(op_type, case, rng):
    fixture = Fixture(op_type, case)
    feeds = fixture.feeds()
    scales = powers(rng, fixture.graph.constant("x1").shape)
    constants = {name: fixture.graph.constant(name) * scales for name in fixture.graph.constants}
    (before,), (after,) = fixture.run(feeds), fixture.run(feeds, constants)
    shaped = scales if fixture.row.trailing else along(scales, 4, 1)
    assert exact_equal(after, before * shaped)
    (moved,) = fixture.run({"x0": feeds["x0"] * 2})
    assert not exact_equal(moved, before * 2)


@cases(ScaleRule.BATCH_NORM)
def test_batch_norms_decouple_both_sides(op_type, case, rng):
    fixture = Fixture(op_type, case)
    feeds = fixture.feeds()
    inner, outer = powers(rng, 6), powers(rng, 6)
    gamma, beta, mean = (fixture.graph.constant(f"x{i}") for i in (1, 2, 3))
    constants = {"x1": gamma * outer / inner, "x2": beta * outer, "x3": mean * inner}
    x = feeds["x0"]
    (before,) = fixture.run(feeds)
    (after,) = fixture.run({"x0": x * along(inner, x.ndim, 1)}, constants)
    assert exact_equal(after, before * along(outer, x.ndim, 1))


@cases(ScaleRule.INVARIANT)
def test_scales_leave_no_trace(op_type, case, rng):
    fixture = Fixture(op_type, case)
    x = fixture.feeds()["x0"]
    axes = fixture.row.mixed_axes(fixture.graph, fixture.node, x.ndim)
    gain = powers(rng, [1 if axis in axes else size for axis, size in enumerate(x.shape)])
    (before,), (after,) = fixture.run({"x0": x}), fixture.run({"x0": x * gain})
    assert np.array_equal(before, after)


# --- offsets -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "op_type", [row.op_type for row in OPERATORS.values() if row.offset is not OffsetRule.STOPS]
)
def test_offsets(op_type):
    """Each rule, in every case whose padding lets it hold."""
    fixtures = [Fixture(op_type, case) for case in CASES[op_type]]
    fixtures = [f for f in fixtures if offset_rule(f.node) is not OffsetRule.STOPS]
    assert fixtures
    for fixture in fixtures:
        feeds = fixture.feeds()
        moved = {name: x + np.float32(0.75) for name, x in feeds.items()}
        expected, constants = 0.75, None
        if fixture.row.offset is OffsetRule.ABSORBS:
            if isinstance(layout := weight_layout(fixture.graph, fixture.node), Refusal):
                continue
            weight = layout.to_output_major(fixture.graph.constant(layout.weight))
            gain = 0.75 * case_alpha(fixture)
            expected = along(gain * weight.sum(axis=(1, 2)), feeds["x0"].ndim, layout.output_axis)
        if fixture.row.offset is OffsetRule.ADDS:
            expected = 0.75 * len(feeds)
        if fixture.row.offset is OffsetRule.LIMITS:
            constants = {
                f"x{i}": np.float32(value + np.float32(0.75))
                for i, value in fixture.case.constants.items()
            }
            if op_type == "Relu":
                y = np.maximum(moved["x0"], np.float32(0.75))
                assert np.allclose(y - 0.75, fixture.run(feeds)[0], atol=1e-6)
                continue
        for before, after in zip(fixture.run(feeds), fixture.run(moved, constants), strict=True):
            assert np.allclose(after, before + expected, atol=1e-5)


def case_alpha(fixture):
    return fixture.case.attributes.get("alpha", 1.0)


@pytest.mark.parametrize("op_type", [row.op_type for row in OPERATORS.values() if row.averages])
def test_outputs_lie_between_inputs_and_zero(op_type):
    for case in CASES[op_type]:
        fixture = Fixture(op_type, case)
        for offset in (0, 3, -3):
            x = fixture.feeds()["x0"] + np.float32(offset)
            for y in fixture.run({"x0": x}):
                assert min(x.min(), 0) - 1e-5 <= y.min()
                assert y.max() <= max(x.max(), 0) + 1e-5


def along(values, rank, axis):
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)


# --- int8 --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high", "zero"), [(-127, 127, 0), (0, 255, 77)])
@cases(forms=[IntegerForm.MOVE])
def test_int8_passes_through(op_type, case, low, high, zero, rng):
    """What comes out lies on the grid that went in, so the operator can run on the integers."""
    if OLD_RUNTIME and "noop_with_empty_axes" in str(case):
        pytest.skip("ONNX Runtime before 1.24 does not run noop_with_empty_axes")
    fixture = Fixture(op_type, case)
    if fixture.row.integer_form is not IntegerForm.MOVE:
        assert fixture.row.quantized is QuantizedRule.FLOAT
        return
    scale = np.float32(0.0371)
    feeds = {
        name: (rng.integers(low, high + 1, x.shape) - zero).astype(np.float32) * scale
        for name, x in fixture.feeds().items()
    }
    for y in fixture.run(feeds):
        integers = np.rint(y / scale) + zero
        assert exact_equal((integers - zero).astype(np.float32) * scale, y)
        assert low <= integers.min()
        assert integers.max() <= high


@cases(forms=[IntegerForm.VALUE, IntegerForm.PRODUCT])
def test_each_result_depends_on_one_value_of_each_operand(op_type, case, rng):
    fixture = Fixture(op_type, case)
    feeds = fixture.feeds()
    (before,) = fixture.run(feeds)
    name = fixture.activations[0]
    places = np.zeros(feeds[name].shape, bool)
    places.flat[rng.integers(places.size)] = True
    (after,) = fixture.run(feeds | {name: feeds[name] + places * np.float32(0.5)})
    assert before.shape == places.shape
    assert not ((before != after) & ~places).any()


def test_interpolation_leaves_the_grid():
    for case in CASES["Resize"]:
        fixture = Fixture("Resize", case)
        nearest = case.attributes["mode"] == "nearest"
        assert (fixture.row.quantized is QuantizedRule.SHARED) is nearest


@pytest.mark.parametrize("op_type", [row.op_type for row in OPERATORS.values() if row.bounds])
def test_outputs_stay_within_their_bounds(op_type):
    for case in CASES[op_type]:
        fixture = Fixture(op_type, case)
        low, high = fixture.row.bounds
        for gain in (1, 1e3, 1e30, 0):
            (y,) = fixture.run({"x0": fixture.feeds()["x0"] * np.float32(gain)})
            assert low <= y.min()
            assert y.max() <= high


@pytest.mark.parametrize("op_type", [r.op_type for r in OPERATORS.values() if r.power])
def test_powers(op_type):
    for case in CASES[op_type]:
        fixture = Fixture(op_type, case)
        power = degree(fixture.graph, fixture.node)
        if power is None:
            assert op_type == "Mul"  # of two tensors
            continue
        x = np.abs(fixture.feeds()["x0"]) + 2
        (before,), (after,) = fixture.run({"x0": x}), fixture.run({"x0": x * np.float32(2**20)})
        found = np.log2(after / before) / 20
        # A logarithm grows by what is added to it.
        assert np.all(np.abs(found - power) < (0.3 if power == 0 else 1e-5))


def test_a_product_with_itself_is_a_square():
    node = helper.make_node("Mul", ["x", "x"], ["y"])
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in "xy"]
    graph = Graph(Model(helper.make_model(helper.make_graph([node], "g", info[:1], info[1:]))))
    assert degree(graph, graph.nodes[0]) == 2


@pytest.mark.parametrize(
    "op_type", [r.op_type for r in OPERATORS.values() if r.rearranges is not Rearrangement.NONE]
)
def test_each_element_is_there_once(op_type):
    for case in CASES[op_type]:
        fixture = Fixture(op_type, case)
        x = fixture.feeds()["x0"]
        (y,) = fixture.run({"x0": x})
        assert np.array_equal(np.sort(y.ravel()), np.sort(x.ravel()))
        if fixture.row.rearranges is Rearrangement.AXES:
            assert sorted(n for n in x.shape if n > 1) == sorted(n for n in y.shape if n > 1)


@pytest.mark.parametrize("op_type", [r.op_type for r in OPERATORS.values() if r.copies])
def test_copies(op_type):
    for case in CASES[op_type]:
        feeds = Fixture(op_type, case).feeds()
        assert exact_equal(Fixture(op_type, case).run(feeds)[0], feeds["x0"])


def test_what_is_subtracted_and_what_is_limited():
    x = {"x0": floats(-1, 2, 5)}
    for op_type, wanted in (("Sub", [-4, -1, 2]), ("Max", [3, 3, 5]), ("Min", [-1, 2, 3])):
        fixture = Fixture(op_type, Case((3,), constants=at(_1=floats(3))))
        assert fixture.run(x)[0].tolist() == wanted
        assert fixture.row.subtracts == (op_type == "Sub")
        assert fixture.row.limits == {"Max": 1, "Min": -1}.get(op_type, 0)


@pytest.mark.parametrize("row", OPERATORS.values(), ids=lambda row: row.op_type)
def test_rows_are_consistent(row):
    assert (row.quantized is QuantizedRule.WEIGHTED) == (row.layout is not None)
    assert (row.quantized is QuantizedRule.WEIGHTED) == (row.scale is ScaleRule.LINEAR)
    if row.fuses:
        assert row.quantized is QuantizedRule.OWN
    if row.bounds:
        assert row.scale is ScaleRule.BARRIER
