"""Products of integers that a model writes itself: exact, against onnx's reference evaluator."""

import numpy as np
import onnxq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxq.emulation.emulate import emulator
from onnxq.emulation.layers import IntegerProduct
from onnxq.model.model import Model
from onnxq.model.session import open_session, run
from onnxq.model.status import Float

from support import masked
from support.builder import Builder
from support.exact import CPU_SATURATES
from support.random_graphs import random_feeds


def product(weight, *, zero=None, dtype=np.uint8, rows=False):
    """x × weight as integers, whose result is the model's."""
    node = helper.make_node
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    inputs = [helper.make_tensor_value_info("x", kind, ["N", weight.shape[0]])]
    names = ["x", "w", "z", "v"] if zero is not None else ["x", "w", "z"]
    inputs.append(helper.make_tensor_value_info("z", kind, ["N"] if rows else []))
    weights = [numpy_helper.from_array(weight, "w")]
    if zero is not None:
        weights.append(numpy_helper.from_array(zero, "v"))
    nodes = [
        node("MatMulInteger", names, ["sums"], name="product"),
        node("Cast", ["sums"], ["y"], name="cast", to=TensorProto.DOUBLE),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.DOUBLE, ["N", weight.shape[1]])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    opset = [helper.make_opsetid("", 17)]
    return Model(helper.make_model(graph, opset_imports=opset, ir_version=8))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([(1, 1), (7, 5), (300, 9), (3000, 2)]),
    st.sampled_from([np.int8, np.uint8]),
    st.booleans(),
    st.integers(0, 999),
)
def test_sums_are_exact_however_long_they_are(shape, dtype, shifted, seed):
    rng = np.random.default_rng(seed)
    info = np.iinfo(dtype)
    # Extremes often: the sums of 3,000 of them are beyond what float32 holds.
    drawn = rng.integers(info.min, info.max + 1, shape)
    weight = np.where(rng.random(shape) < 0.5, info.max, drawn).astype(dtype)
    zero = np.asarray(rng.integers(info.min, info.max + 1), dtype) if shifted else None
    model = product(weight, zero=zero)
    feeds = {
        "x": rng.integers(200, 256, (4, shape[0])).astype(np.uint8),
        "z": np.asarray(rng.integers(0, 256), np.uint8),
    }
    machine = emulator(model)
    assert isinstance(machine.plan["product"], IntegerProduct)
    (found,), overflows = machine.run(feeds)
    factors = [
        feeds["x"].astype(np.int64) - int(feeds["z"]),
        weight.astype(np.int64) - (0 if zero is None else int(zero)),
    ]
    assert np.array_equal(found, (factors[0] @ factors[1]).astype(np.float64))
    assert not overflows


def test_a_long_sum_is_cut_into_parts():
    weight = np.full((3000, 2), np.iinfo(np.int8).max, np.int8)
    (entry,) = (
        each for each in emulator(product(weight)).plan.values() if isinstance(each, IntegerProduct)
    )
    assert len(entry.parts) > 1
    assert entry.reach.fits(entry.accumulator)


def test_rows_with_zero_points_of_their_own_stay_as_they_are():
    machine = emulator(product(np.ones((4, 3), np.int8), rows=True))
    status = machine.plan["product"]
    assert isinstance(status, Float)
    assert status.reason == "the zero points of its rows differ"


def dynamic_model(seed=0):
    b = Builder(seed)
    x = b.input(6, 24)
    y = b.op("Relu", b.op("Add", b.matmul(x, 40), b.const(b.random(40))))
    model = b.model(b.matmul(y, 5))
    return onnxq.quantize(model, target="cpu", scheme="dynamic")[0]


@pytest.mark.parametrize("seed", range(4))
def test_a_dynamic_model_is_what_onnx_specifies(seed):
    """Bit for bit: ranges, scales and rounding are float32 operations in a fixed order."""
    model = dynamic_model(seed)
    feeds = random_feeds(model, seed, batch=1)
    (found,), _ = emulator(model).run(feeds)
    (specified,) = ReferenceEvaluator(model.proto).run(None, feeds)
    assert np.array_equal(found, specified)


@pytest.mark.parametrize("seed", range(4))
def test_onnx_runtime_computes_the_same_but_for_the_last_bits_of_its_fused_kernel(seed):
    model = dynamic_model(seed)
    feeds = random_feeds(model, seed, batch=1)
    (found,), _ = emulator(model).run(feeds)
    (fused,) = run(open_session(model, threads=1), None, feeds)
    if not CPU_SATURATES:
        (unfused,) = run(open_session(model, optimize=False, threads=1), None, feeds)
        assert np.array_equal(found, unfused)
    # One step of what is quantized in between may fall on the other side.
    assert np.linalg.norm(fused - found) <= 0.01 * np.linalg.norm(found)


def test_layers_are_compared_with_onnx_runtimes_kernels():
    b = Builder(0)
    x = b.input(6, 24)
    model = b.model(b.matmul(b.op("Relu", b.matmul(x, 40)), 5))
    quantized, _ = onnxq.quantize(model, target="cpu", scheme="dynamic")
    found = onnxq.api.compare_layers(quantized, random_feeds(model, 1, batch=4))
    assert [each.values for each in found] == [4 * 6 * 24, 4 * 6 * 40]
    assert "MatMulIntegerToFloat" in found[1].kernels
    assert max(each.largest for each in found) <= 1


def test_a_model_of_one_batch_size_is_emulated_in_its_batches():
    b = Builder(0, batch=4)
    model = b.model(b.matmul(b.input(24), 5))
    quantized, _ = onnxq.quantize(model, target="cpu", scheme="dynamic")
    x = np.concatenate([random_feeds(model, seed)["x"] for seed in (1, 2)])
    (emulated,) = onnxq.emulate(quantized, {"x": x}).outputs.values()
    session = open_session(quantized, optimize=CPU_SATURATES, threads=1)
    halves = (run(session, None, {"x": x[at : at + 4]})[0] for at in (0, 4))
    # The last bits of a fused kernel are its own.
    tolerance = 1e-5 if CPU_SATURATES else 0
    np.testing.assert_allclose(emulated, np.concatenate(list(halves)), tolerance, tolerance)
    assert onnxq.api.compare_layers(quantized, {"x": x})


def test_samples_of_several_lengths_are_filled_up(tmp_path):
    model, samples = masked.encoder(), masked.sentences(5)
    int8, _ = onnxq.quantize(model, target="cpu", scheme="dynamic")
    found = onnxq.emulate(int8, masked.save_feeds(samples, tmp_path / "feeds"))
    lengths = [len(sample) for sample in samples]
    assert found["y"].shape == (5, max(lengths), 6)
    assert found.sizes["y"].tolist() == [[length, 6] for length in lengths]
    assert "mean" not in found.sizes
    for row, sample in enumerate(samples):
        one = onnxq.emulate(
            int8, {"x": sample[None], "attention_mask": np.ones((1, len(sample)), int)}
        )
        np.testing.assert_array_equal(found["y"][row, : len(sample)], one["y"][0])
        assert not found["y"][row, len(sample) :].any()
