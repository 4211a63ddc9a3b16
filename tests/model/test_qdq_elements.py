"""Q/DQ of every element type the operators take: readers take it, or refuse it in one sentence."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxq.errors import ModelError
from onnxq.model import elements, files
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.normalize import normalize
from onnxq.model.widen import widen
from onnxq.quantization.details import details

from support.cli_case import run

OPSETS = range(21, 26)
WEIGHT, INPUT, BLOCK = (4, 3), (2, 4), 2


def allowed(operator, parameter, opset):
    """Names of the element types that the operator's schema allows there."""
    schema = onnx.defs.get_schema(operator, opset, "")
    (constraint,) = (c for c in schema.type_constraints if c.type_param_str == parameter)
    return {
        text.removeprefix("tensor(").removesuffix(")").upper()
        for text in constraint.allowed_type_strs
    }


def number(name):
    return TensorProto.DataType.Value(name)


def first_and_last(parameter, without):
    """Each type with the first operator set that allows it, and with the last."""
    found = {}
    for opset in OPSETS:
        for name in sorted(allowed("DequantizeLinear", parameter, opset) - without):
            found.setdefault(name, opset)
    return sorted({(opset, name) for name in found for opset in (found[name], OPSETS[-1])})


STORED = first_and_last("T1", {"INT32"})  # that of biases
SCALES = first_and_last("T2", {"FLOAT"})
every_type = pytest.mark.parametrize(("opset", "name"), STORED)
every_form = pytest.mark.parametrize("form", ["zero point", "no zero point", "blocks"])


def values(name, shape):
    """Small values, which every type holds."""
    numbers = np.arange(np.prod(shape)).reshape(shape) % 2
    return numbers.astype(helper.tensor_dtype_to_np_dtype(number(name)))


def qdq_model(name, opset, form="zero point", scale="FLOAT"):
    """x → Q → DQ → MatMul with a weight behind a DequantizeLinear, all of type `name`."""
    blocks = form == "blocks"
    size = (WEIGHT[0] // BLOCK, WEIGHT[1]) if blocks else ()
    named = {
        "w_q": values(name, WEIGHT),
        "w_s": np.full(size, 0.5).astype(helper.tensor_dtype_to_np_dtype(number(scale))),
        "x_s": np.array(0.5).astype(helper.tensor_dtype_to_np_dtype(number(scale))),
    }
    quantized = {"output_dtype": number(name)}
    ends = {"x": [], "w": []}
    if form == "zero point":
        named |= {"x_z": values(name, ()), "w_z": values(name, size)}
        quantized, ends = {}, {"x": ["x_z"], "w": ["w_z"]}
    restored = {"output_dtype": TensorProto.FLOAT} if scale == "FLOAT8E8M0" else {}
    in_blocks = {"axis": 0, "block_size": BLOCK} if blocks else {}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_s", *ends["x"]], ["x_q"], "quantize", **quantized),
        helper.make_node("DequantizeLinear", ["x_q", "x_s", *ends["x"]], ["x_d"], "dequantize", **restored),
        helper.make_node("DequantizeLinear", ["w_q", "w_s", *ends["w"]], ["w_d"], "weight", **restored, **in_blocks),
        helper.make_node("MatMul", ["x_d", "w_d"], ["y"], "matmul"),
    ]  # fmt: skip
    if scale in {"FLOAT16", "BFLOAT16"}:  # then so is what they give
        nodes[-1].input[:] = ["x_f", "w_f"]
        casts = [
            helper.make_node("Cast", [f"{end}_d"], [f"{end}_f"], to=TensorProto.FLOAT)
            for end in "xw"
        ]
        nodes[-1:-1] = casts
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(INPUT))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [INPUT[0], WEIGHT[1]])
    tensors = [numpy_helper.from_array(array, key) for key, array in named.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    opsets = [helper.make_opsetid("", opset)]
    # What the runtimes take that know the operator set (onnx's table of versions).
    version = helper.find_min_ir_version_for(opsets)
    return helper.make_model(graph, opset_imports=opsets, ir_version=version)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "m.onnx"


@every_type
@every_form
def test_it_is_read_as_it_is(opset, name, form, path):
    onnx.save(qdq_model(name, opset, form), path)
    loaded = files.load(path)
    weight = Graph(loaded).value("w_q")
    assert weight.shape == WEIGHT
    assert weight.astype(np.float64).tolist() == values(name, WEIGHT).astype(np.float64).tolist()
    assert Graph(loaded).elem_type("w_q") == number(name)
    assert files.load(path).fingerprint == loaded.fingerprint
    assert elements.raw_size(number(name), weight.size) == len(elements.raw(weight))


@every_type
@every_form
def test_normalized_it_is_the_same(opset, name, form, path):
    onnx.save(qdq_model(name, opset, form), path)
    loaded = files.load(path)
    after = normalize(loaded)[0]
    assert [n.op_type for n in after.proto.graph.node] == [
        n.op_type for n in loaded.proto.graph.node
    ]
    before = {t.name: t for t in loaded.proto.graph.initializer}
    assert {t.name: t for t in after.proto.graph.initializer} == before


@every_type
@every_form
def test_saved_or_refused(opset, name, form, path):
    onnx.save(qdq_model(name, opset, form), path)
    loaded = files.load(path)
    again = path.with_name("again.onnx")
    refusal = refused(loaded, again)
    if refusal is not None:
        assert refusal.startswith("ONNX Runtime refuses the model: ")
        assert not again.exists()
    else:
        assert files.load(again).fingerprint == loaded.fingerprint


def refused(model, path):
    try:
        files.save(model, path)
    except ModelError as error:
        return str(error)
    return None


@every_type
@every_form
def test_inspect_shows_the_stored_type(opset, name, form, path):
    onnx.save(qdq_model(name, opset, form), path)
    found = details(files.load(path))
    (learnable,) = found.learnables
    assert (found.layers, learnable.layer, learnable.shape) == (("matmul",), "matmul", WEIGHT)
    assert learnable.value.replace("_", "").startswith(name.lower())
    shown = run("inspect", path)
    assert shown.code == 0, shown.err
    assert learnable.value in shown.out
    assert run("inspect", path, "--json").json["learnables"][0]["value"] == learnable.value
    for option in ("--lint", "--kernels"):
        assert run("inspect", path, option).code in {0, 1, 3}


@pytest.mark.parametrize(("opset", "scale"), SCALES)
@pytest.mark.parametrize("name", ["INT8", "FLOAT8E4M3FN", "INT4"])
def test_scales_of_every_type(opset, scale, name, path):
    onnx.save(qdq_model(name, opset, "no zero point", scale), path)
    loaded = files.load(path)
    assert Graph(loaded).value("w_s") == 0.5
    assert run("inspect", path).code == 0
    normalize(loaded)


@pytest.mark.parametrize("scale", ["FLOAT16", "BFLOAT16"])
def test_what_a_node_says_of_its_types_is_widened_with_them(scale):
    proto = qdq_model("INT8", 23, scale=scale)
    quantize, *dequantize = (node for node in proto.graph.node if "Linear" in node.op_type)
    quantize.attribute.append(helper.make_attribute("precision", number(scale)))
    for node in dequantize:
        node.attribute.append(helper.make_attribute("output_dtype", number(scale)))
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    wide, _ = widen(Model(proto))
    shaped = onnx.shape_inference.infer_shapes(wide.proto, check_type=True, strict_mode=True)
    types = {i.name: i.type.tensor_type.elem_type for i in shaped.graph.value_info}
    assert types["x_d"] == types["w_d"] == TensorProto.FLOAT
    assert {a.i for n in wide.proto.graph.node for a in n.attribute} == {TensorProto.FLOAT}
