"""Schemes of weights alone: 8 and 4 bits, by channel and in blocks, and layers that are spared."""

import numpy as np
import onnx
import onnxq
import onnxruntime as ort
import pytest
from onnx import TensorProto
from onnxq.errors import UsageError
from onnxq.formats.granularity import Blocks
from onnxq.model.graph import Graph, Place
from onnxq.model.model import Model
from onnxq.model.qdq import QdqGraph, stored_weight
from onnxq.model.session import open_session, run, with_graph

from support.builder import Builder
from support.cli_case import run as cli

WIDTH = 80
"""No multiple of a block, so that the last one is shorter."""


def layers(opset=17):
    """A convolution, matrices as a MatMul and as both forms of a Gemm."""
    b = Builder(3, spread=1, opset=opset)
    x = b.op("Relu", b.conv(b.input(3, 4, 4), 5, k=3, name="conv"))
    x = b.op("Flatten", x, shape=(WIDTH,))
    x = b.op("Relu", b.matmul(x, 48, name="matmul"))
    x = b.op("Relu", b.gemm(x, 40, trans_b=0, name="gemm"))
    return Model(b.proto(b.gemm(x, 6, trans_b=1, name="last")))


def samples(count=96):
    return {"x": np.random.default_rng(5).standard_normal((count, 3, 4, 4)).astype(np.float32)}


def weight_of(model, node):
    graph = QdqGraph(model)
    return stored_weight(graph, graph.by_name[node].inputs[1])


def outputs(model, feeds=None, *, level="", optimize=True):
    options = ort.SessionOptions()
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if level:
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", level)
    session = ort.InferenceSession(model.proto.SerializeToString(), options)
    return session.run(None, feeds or samples())[0]


def sqnr(wanted, got):
    return 10 * np.log10(np.square(wanted).sum() / max(np.square(wanted - got).sum(), 1e-30))


@pytest.fixture(scope="module")
def four_bits():
    return onnxq.quantize(layers(), samples(), target="cpu", scheme="w4", equalize=False)


def test_matrices_are_in_blocks_along_their_inputs(four_bits):
    model, _ = four_bits
    onnx.checker.check_model(model.proto, full_check=True)
    assert model.proto.opset_import[0].version >= 21
    for node, axis, shape in (("matmul", 0, (3, 48)), ("gemm", 0, (2, 40)), ("last", 1, (6, 2))):
        found = weight_of(model, node)
        assert (found.format.name, found.parameters.granularity) == ("uint4", Blocks(axis, 32))
        assert found.parameters.scale.shape == shape
    assert {row.name for row in model.proto.graph.input} == {"x"}


def test_a_convolution_has_the_wider_scheme(four_bits):
    model, result = four_bits
    assert weight_of(model, "conv").format.name == "int8"
    assert result.plan.nodes["conv"].scheme.name == "w8"
    assert result.plan.nodes["matmul"].scheme.name == "w4"


def test_without_a_wider_scheme_it_stays_in_float(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('base = "cpu"\n[schemes.w4]\nweight = "int4"\n')
    model, result = onnxq.quantize(layers(), target=str(path), scheme="w4")
    assert result.plan.nodes["conv"].reason == "w4 stores weights in blocks: Conv has none"
    assert weight_of(model, "matmul").format.name == "int4"
    assert not weight_of(model, "matmul").parameters.zero_point.any()


def products():
    """Three layers as exporters write them, each a MatMul and the Add of its bias."""
    b = Builder(3, spread=1)
    x = b.input(7, WIDTH)
    for name in ("first", "second", "third"):
        x = b.op("Add", b.matmul(x, 48, name=name), b.const(b.random(48)))
        x = b.op("Relu", x)
    return Model(b.proto(x))


@pytest.mark.parametrize("options", [{"scheme": "w4"}, {"scheme": "w8", "block_size": 32}])
def test_onnx_runtime_multiplies_by_the_numbers_themselves(options):
    model, _ = onnxq.quantize(products(), target="cpu", **options)
    _, graph = with_graph(lambda optimized: open_session(model, optimized=optimized))
    kinds = [node.op_type for node in graph.graph.node]
    assert kinds == ["MatMulNBits", "Relu"] * 3
    feeds = {"x": np.random.default_rng(6).standard_normal((9, 7, WIDTH)).astype(np.float32)}
    exact = outputs(model, feeds, optimize=False)
    assert sqnr(exact, outputs(model, feeds, level="1")) > 90
    # With activations in 8 bits, which is what it does unless told.
    assert 25 < sqnr(exact, outputs(model, feeds)) < 60


def test_the_emulator_has_float_activations(four_bits):
    model, _ = four_bits
    found = onnxq.emulate(model, samples())
    (name,) = found
    assert sqnr(outputs(model, optimize=False), found[name]) > 110


def test_data_round_weights_for_their_layers_output():
    wanted = outputs(layers())
    for options in ({"scheme": "w4"}, {"scheme": "w8"}, {"scheme": "w8", "block_size": 32}):
        options |= {"target": "cpu", "equalize": False, "bias_correction": False}
        plain, _ = onnxq.quantize(layers(), **options)
        rounded, result = onnxq.quantize(layers(), samples(), **options)
        assert sum(record.adaptive for record in result.roundings) >= 3
        gain = [sqnr(wanted, outputs(model, optimize=False)) for model in (plain, rounded)]
        assert gain[1] > gain[0] + 1


def test_smaller_blocks_are_closer():
    wanted, found = outputs(layers()), {}
    for size in (None, 128, 64, 32):
        model, _ = onnxq.quantize(layers(), target="cpu", scheme="w8", block_size=size)
        found[size] = sqnr(wanted, outputs(model, optimize=False))
        blocks = weight_of(model, "matmul").parameters.granularity
        assert blocks == Blocks(0, size) if size else blocks.axis == 1
    assert found[32] > found[64] > found[128]
    assert found[32] > found[None] + 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scheme": "w8a8", "block_size": 32}, "--block-size: scheme w8a8 has no blocks"),
        ({"scheme": "w4", "weights": "per-tensor"}, "--weights per-tensor does not go with"),
        ({"scheme": "w4", "target": "gpu"}, "target gpu does not take scheme w4"),
        ({"scheme": "w4", "mixed": 0.5}, "--mixed needs samples"),
        ({"target": "gpu", "table_bits": 4, "data": samples()}, "gpu stores no tables in 4 bits"),
    ],
)
def test_what_does_not_go_together(options, said):
    with pytest.raises(UsageError) as error:
        onnxq.quantize(layers(), **{"target": "cpu", **options})
    assert said in error.value.message


def formats(model):
    return {node: weight_of(model, node).format.name for node in ("matmul", "gemm", "last")}


def test_mixed_spares_the_layers_that_hurt_most_within_its_share():
    options = {"target": "cpu", "scheme": "w4", "equalize": False}
    found = {}
    for share in (0, 0.6, "100%"):
        model, _ = onnxq.quantize(layers(), samples(), mixed=share, **options)
        found[share] = model
    assert set(formats(found[0]).values()) == {"uint4"}
    assert set(formats(found["100%"]).values()) == {"int8"}
    some, graph = formats(found[0.6]), Graph(layers())
    assert set(some.values()) == {"int8", "uint4"}
    sizes = {node: graph.value(graph.by_name[node].inputs[1]).size for node in (*some, "conv")}
    spared = sum(sizes[node] for node, name in some.items() if name == "int8")
    assert spared <= 0.6 * sum(sizes.values())
    wanted = outputs(layers())
    closeness = [sqnr(wanted, outputs(found[s], optimize=False)) for s in (0, 0.6, "100%")]
    assert closeness == sorted(closeness)
    assert closeness[2] > closeness[0] + 15


def test_every_command_reads_such_a_model(four_bits, tmp_path):
    model, _ = four_bits
    found = onnxq.validate(layers(), [model], samples(), executions=["emulate", "cpu"], layers=True)
    emulated, as_run = (row.values["sqnr"] for row in found.rows[1:])
    assert emulated > as_run - 1
    assert emulated == pytest.approx(sqnr(outputs(layers()), outputs(model, optimize=False)), abs=1)
    assert {layer.name for layer in found.layers[0].layers} >= {"matmul", "gemm", "conv"}
    assert onnxq.inspect(model, lint=True).findings == ()
    details = onnxq.inspect(model).details
    rows = {row.layer: row for row in details.learnables if row.parameter == "Weights"}
    assert (rows["matmul"].value, rows["matmul"].granularity) == (
        f"uint4 {WIDTH}×48", "blocks of 32 on axis 0",
    )  # fmt: skip
    facts = onnxq.explain(model, "matmul").quantization
    assert any("144 scales blocks of 32 on axis 0" in fact.text for fact in facts)
    page, _ = onnxq.report(layers(), [model], data=samples())
    assert "uint4" in page


def test_its_recipe_makes_it_again(tmp_path):
    source, first, again = (tmp_path / f"{name}.onnx" for name in ("m", "first", "again"))
    onnx.save(layers().proto, source)
    np.savez(tmp_path / "data.npz", **samples())
    words = ("--block-size", 64, "--mixed", "40%", "--table-bits", 4)
    data = ("--target", "cpu", "--scheme", "w4", "--data", tmp_path / "data.npz", *words)
    made = cli("quantize", source, *data, "-o", first)
    assert made.code == 0
    assert "of them in w8: conv" in made.out
    recipe = tmp_path / "again.toml"
    recipe.write_text(cli("inspect", first, "--recipe").out)
    for line in ("block-size = 64", "mixed = 0.4", "table-bits = 4"):
        assert line in recipe.read_text()
    assert cli("quantize", source, "--recipe", recipe, *data[4:6], "-o", again).code == 0
    assert again.read_bytes() == first.read_bytes()


# --- tables --------------------------------------------------------------------------------------

ROWS, COLUMNS = 1 << 11, 64


def embedding():
    """A table beyond the size from which it counts where only weights are quantized."""
    b = Builder(1, spread=0, opset=17)
    b.inputs.append(onnx.helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", "length"]))
    table = b.const(np.random.default_rng(1).standard_normal((ROWS, COLUMNS)), "table")
    b.shapes["rows"] = ("length", COLUMNS)
    b.op("Gather", table, "ids", name="rows", shape=("length", COLUMNS))
    return Model(b.proto(b.matmul("rows", 32, name="layer")))


def words(count=64):
    return {"ids": np.random.default_rng(2).integers(-ROWS, ROWS, (count, 5))}


@pytest.mark.parametrize(
    ("options", "kind", "said", "least"),
    [
        ({"scheme": "w8"}, TensorProto.INT8, "int8, by row", 40),
        ({"scheme": "w8", "block_size": 32}, TensorProto.INT8, "int8, in blocks of 32", 42),
        ({"scheme": "w8", "block_size": 128}, TensorProto.INT8, "int8, by row", 40),
        ({"scheme": "w4"}, TensorProto.INT8, "int8, by row", 18),
        ({"scheme": "w4", "table_bits": 4}, TensorProto.UINT4, "uint4, in blocks of 32", 16),
        ({"scheme": "w8", "table_bits": 4}, TensorProto.UINT4, "uint4, in blocks of 32", 20),
        ({"scheme": "w8a8", "table_bits": 8}, TensorProto.INT8, "int8, in blocks of 32", 35),
    ],
)
def test_tables_are_stored_as_asked(options, kind, said, least):
    model, result = onnxq.quantize(embedding(), words(), target="cpu", **options)
    stored = [each for each in model.proto.graph.initializer if tuple(each.dims) == (ROWS, COLUMNS)]
    assert [each.data_type for each in stored] == [kind]
    onnx.checker.check_model(model.proto)
    reason = getattr(result.plan.nodes["rows"], "reason", "")
    assert said is None or said in reason
    wanted = run(open_session(embedding()), None, words())[0]
    emulated = onnxq.emulate(model, words())
    got = run(open_session(model, optimize=False), None, words())[0]
    assert sqnr(wanted, got) > least
    assert sqnr(got, emulated[next(iter(emulated))]) > 50
    assert Place("rows", 0) not in result.plan.weights


@pytest.mark.parametrize("scheme", ["w8", "w4"])
def test_a_table_that_is_the_last_layer_too_is_stored_in_numbers(scheme):
    b = Builder(1, spread=0, opset=17)
    b.inputs.append(onnx.helper.make_tensor_value_info("ids", TensorProto.INT64, ["N"]))
    table = b.const(np.random.default_rng(1).standard_normal((ROWS, COLUMNS)), "table")
    b.op("Gather", table, "ids", name="rows", shape=(COLUMNS,))
    b.op("Sigmoid", "rows", name="hidden", shape=(COLUMNS,))
    model = Model(b.proto(b.op("Gemm", "hidden", table, name="head", transB=1, shape=(ROWS,))))
    quantized, _ = onnxq.quantize(model, target="cpu", scheme=scheme)
    kinds = {each.data_type for each in quantized.proto.graph.initializer if len(each.dims) > 1}
    assert TensorProto.FLOAT not in kinds or scheme == "w4"
    large = [e for e in quantized.proto.graph.initializer if tuple(e.dims) == (ROWS, COLUMNS)]
    assert {each.data_type for each in large} <= {TensorProto.INT8, TensorProto.UINT4}
    assert len(large) == (1 if scheme == "w8" else 2)
    feeds = {"ids": np.arange(0, ROWS, 7)}
    wanted, got = (run(open_session(m, optimize=False), None, feeds)[0] for m in (model, quantized))
    assert sqnr(wanted, got) > (40 if scheme == "w8" else 18)
