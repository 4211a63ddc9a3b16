"""Faults that the scoreboards found, each by the smallest model that showed it."""

import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import onnx
import onnxq
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxq.calibration import files as calibration_files
from onnxq.data.axes import find_axes
from onnxq.data.tar import open_tar
from onnxq.errors import DataError, ModelError
from onnxq.model.files import load
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.normalize import normalize
from onnxq.model.session import open_session, run
from onnxq.quantization.details import METADATA_KEY, details

from support.builder import Builder

RNG = np.random.default_rng(0)


def info(name, *shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def built(nodes, inputs, outputs, weights=(), *, opset=17, ir_version=8):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(weights))
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def weight(name, *shape):
    return numpy_helper.from_array(RNG.standard_normal(shape).astype(np.float32), name)


def small():
    b = Builder()
    return b.proto(b.head(b.op("Relu", b.conv(b.input(3, 4, 4), 4, name="conv"))))


def refused(proto, tmp_path, message):
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match=message):
        load(path)


# --- what protobuf lets pass -------------------------------------------------------------------


def test_text_that_is_not_utf8(tmp_path):
    proto = small()
    content = proto.SerializeToString().replace(b"conv", b"co\xffv")
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="not UTF-8"):
        load(tmp_path / "m.onnx")


@pytest.mark.parametrize("implementation", ["upb", "python"])
def test_text_that_is_not_utf8_whoever_parses_it(tmp_path, implementation):
    """Packages such as onnxruntime_extensions choose protobuf's Python implementation."""
    path = tmp_path / "m.onnx"
    path.write_bytes(small().SerializeToString().replace(b"conv", b"co\xffv"))
    done = subprocess.run(
        [sys.executable, "-m", "onnxq", "inspect", path], capture_output=True, text=True, check=False,
        env=os.environ | {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": implementation},
    )  # fmt: skip
    assert done.returncode == 3
    said = f"error: {path}: not a valid ONNX model: a name or text in it is not UTF-8\n"
    assert done.stderr == said


def test_an_element_type_that_there_is_not(tmp_path):
    proto = small()
    proto.graph.input[0].type.tensor_type.elem_type = 32767
    refused(proto, tmp_path, "element type")


@pytest.mark.parametrize("where", ["initializer", "Constant"])
@pytest.mark.parametrize("field", ["raw_data", "float_data"])
def test_a_tensor_with_fewer_values_than_its_shape(tmp_path, where, field):
    tensor = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[4])
    if field == "raw_data":
        tensor.raw_data = bytes(12)
    else:
        tensor.float_data.extend([1, 2, 3])
    nodes = [helper.make_node("Add", ["x", "c"], ["y"])]
    weights = [tensor]
    if where == "Constant":
        nodes, weights = [helper.make_node("Constant", [], ["c"], value=tensor), *nodes], []
    refused(
        built(nodes, [info("x", 4)], [info("y", 4)], weights),
        tmp_path,
        "'c' has .* where its shape takes",
    )


def test_an_axis_of_size_minus_one_is_of_any_size(tmp_path):
    proto = small()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    onnx.save(proto, tmp_path / "m.onnx")
    assert load(tmp_path / "m.onnx").inputs[0].shape == (None, 3, 4, 4)


def test_a_repeated_node_name_belongs_to_the_first(tmp_path):
    """ONNX Runtime refuses two nodes of one name."""
    proto = small()
    for node in proto.graph.node:
        node.name = "same"
    onnx.save(proto, tmp_path / "m.onnx")
    model = load(tmp_path / "m.onnx")
    open_session(model)
    assert [node.name for node in model.proto.graph.node][:2] == ["same", ""]


def test_a_shape_that_no_memory_can_hold(tmp_path):
    gemm = helper.make_node("Gemm", ["x", "w"], ["y"])
    inputs, outputs = [info("x", 1 << 40, 1 << 20, 4)], [info("y", "N", 3)]
    refused(built([gemm], inputs, outputs, [weight("w", 4, 3)]), tmp_path, "'x' has a shape")


# --- nodes and models that do not belong -------------------------------------------------------


def test_nodes_that_no_output_depends_on_are_removed():
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["y"], name="used"),
        helper.make_node("Gemm", ["y", "v"], ["h"], name="unused"),
        helper.make_node("Relu", ["h"], ["r"], name="unused too"),
    ]
    weights = [weight("w", 4, 3), weight("v", 3, 5)]
    proto = built(nodes, [info("x", "N", 4)], [info("y", "N", 3)], weights)
    assert normalize(Model(proto))[1].unused == 2
    x = RNG.standard_normal((8, 4)).astype(np.float32)
    _, result = onnxq.quantize(Model(proto), x, rounding="adaptive")
    assert result.plan.weighted == {"used"}


def test_a_model_with_another_output_shape_is_no_version():
    def gemm(*nodes):
        return Model(built(nodes, [info("x", "N", 4)], [info("y", "N", None)], [weight("w", 4, 3)]))

    one = gemm(helper.make_node("Gemm", ["x", "w"], ["y"]))
    other = gemm(helper.make_node("Gemm", ["x", "w"], ["h"]),
                 helper.make_node("Concat", ["h", "h"], ["y"], axis=1))  # fmt: skip
    x = RNG.standard_normal((8, 4)).astype(np.float32)
    with pytest.raises(ModelError, match="the shape 8×6 instead of 8×3"):
        onnxq.validate(one, [other], x, metrics=["sqnr"], executions=["cpu"])


# --- old models --------------------------------------------------------------------------------


def test_weights_listed_as_inputs_are_weights():
    """IR version 3 had no other way; without this nothing of such a model was quantized."""
    proto = built(
        [helper.make_node("Gemm", ["x", "w"], ["y"])],
        [info("x", "N", 4), info("w", 4, 3)], [info("y", "N", 3)], [weight("w", 4, 3)], ir_version=3,
    )  # fmt: skip
    normalized, record = normalize(Model(proto))
    assert record.freed == 1
    assert Graph(normalized).is_constant("w")
    quantized, result = onnxq.quantize(Model(proto), RNG.standard_normal((8, 4)).astype(np.float32))
    assert len(result.plan.weights) == 1
    assert [i.name for i in quantized.proto.graph.input] == ["x"]


def test_weights_that_are_all_listed_as_inputs_are_weights_in_newer_models_too():
    """PyTorch wrote them so for years, with IR version 4 and 6: nothing was quantized."""
    proto = built(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"])],
        [info("x", "N", 4), info("w", 4, 3), info("b", 3)], [info("y", "N", 3)],
        [weight("w", 4, 3), weight("b", 3)], ir_version=6,
    )  # fmt: skip
    quantized, result = onnxq.quantize(Model(proto), RNG.standard_normal((8, 4)).astype(np.float32))
    assert result.normalization.freed == 2
    assert len(result.plan.weights) == 1
    assert [i.name for i in quantized.proto.graph.input] == ["x"]


def test_newer_models_may_let_a_caller_override_a_weight():
    proto = built(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"])],
        [info("x", "N", 4), info("w", 4, 3)], [info("y", "N", 3)],
        [weight("w", 4, 3), weight("b", 3)],
    )  # fmt: skip
    normalized, record = normalize(Model(proto))
    assert record.freed == 0
    assert not Graph(normalized).is_constant("w")


def test_functions_are_written_out_and_quantized():
    body = [helper.make_node("Gemm", ["v", "u"], ["g"]), helper.make_node("Relu", ["g"], ["r"])]
    opsets = [helper.make_opsetid("", 17)]
    function = helper.make_function("mine", "layer", ["v", "u"], ["r"], body, opsets)
    graph = helper.make_graph(
        [helper.make_node("layer", ["x", "w"], ["y"], domain="mine")], "g",
        [info("x", "N", 4)], [info("y", "N", 3)], [weight("w", 4, 3)],
    )  # fmt: skip
    opsets.append(helper.make_opsetid("mine", 1))
    proto = helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=8)
    x = RNG.standard_normal((8, 4)).astype(np.float32)
    quantized, result = onnxq.quantize(Model(proto), x)
    assert result.normalization.inlined == 1
    assert len(result.plan.weights) == 1
    assert not quantized.proto.functions


def test_a_conversion_that_changes_the_inputs_is_refused():
    """Scan of opset 8 has a batch axis of its own, which the converter drops."""
    body = helper.make_graph(
        [helper.make_node("Add", ["s", "v"], ["t"]), helper.make_node("Identity", ["t"], ["o"])], "body",
        [info("s", 2), info("v", 2)], [info("t", 2), info("o", 2)],
    )  # fmt: skip
    proto = built(
        [helper.make_node("Scan", ["", "start", "x"], ["end", "y"], body=body, num_scan_inputs=1)],
        [info("start", 1, 2), info("x", 1, 3, 2)], [info("end", 1, 2), info("y", 1, 3, 2)],
        opset=8, ir_version=4,
    )  # fmt: skip
    with pytest.raises(ModelError, match="would change its inputs or outputs"):
        normalize(Model(proto))


# --- values other than batches of floats ---------------------------------------------------------


@pytest.mark.parametrize("kind", ["scalar", "strings", "sequence"])
def test_the_proof_takes_any_inputs_and_outputs(kind):
    if kind == "scalar":
        proto = built([helper.make_node("Neg", ["x"], ["y"])], [info("x")], [info("y")])
    elif kind == "strings":
        names = (info(n, 2, kind=TensorProto.STRING) for n in "xy")
        proto = built([helper.make_node("Identity", ["x"], ["y"])], [next(names)], [next(names)])
    else:
        pieces = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
        proto = built(
            [helper.make_node("SplitToSequence", ["x"], ["y"])], [info("x", 4, 2)], [pieces]
        )
    _, result = onnxq.equalize(Model(proto))
    assert result.equalization.proof.identical
    assert result.equalization.proof.samples > 0


def test_strings_are_fed_as_they_are():
    names = (info(n, "N", kind=TensorProto.STRING) for n in "xy")
    proto = built([helper.make_node("Identity", ["x"], ["y"])], [next(names)], [next(names)])
    _, result = onnxq.quantize(Model(proto), {"x": np.array(["a", "b"], object)}, allow_none=True)
    assert not result.plan.weights


def test_a_model_without_floats_has_nothing_to_quantize():
    pair = (info(n, "N", 2, kind=TensorProto.INT64) for n in "xy")
    proto = built([helper.make_node("Abs", ["x"], ["y"])], [next(pair)], [next(pair)])
    data = {"x": np.ones((8, 2), np.int64)}
    with pytest.raises(
        ModelError, match="no node becomes quantized for target gpu: Abs has no quantized form"
    ):
        onnxq.quantize(Model(proto), data)
    _, result = onnxq.quantize(Model(proto), data, allow_none=True)
    assert not result.plan.weights


def test_a_model_whose_layers_lie_in_bodies_says_so():
    """As in voice detectors with a branch for each sample rate; the reason was one of integers."""

    def branch(name):
        nodes = [helper.make_node("Gemm", ["x", "w"], [f"{name}.g"]),
                 helper.make_node("MatMul", [f"{name}.g", "v"], [name])]  # fmt: skip
        return helper.make_graph(nodes, name, [], [info(name, "N", 2)])

    proto = built(
        [helper.make_node("Equal", ["rate", "known"], ["same"]),
         helper.make_node("If", ["same"], ["y"], then_branch=branch("a"), else_branch=branch("b"))],
        [info("x", "N", 4), helper.make_tensor_value_info("rate", TensorProto.INT64, [])],
        [info("y", "N", 2)],
        [weight("w", 4, 3), weight("v", 3, 2), numpy_helper.from_array(np.array(8), "known")],
    )  # fmt: skip
    x = RNG.standard_normal((8, 4)).astype(np.float32)
    reason = "4 nodes with a weight in the bodies of an If, which stay float"
    with pytest.raises(ModelError, match=f"for target gpu: {reason}"):
        onnxq.quantize(Model(proto), {"x": x, "rate": np.array(8)})


def test_the_first_complaint_is_shown():
    """Of a batch that fails, not that of its samples one by one."""
    proto = built(
        [helper.make_node("Reshape", ["x", "s"], ["r"]), helper.make_node("Relu", ["r"], ["y"])],
        [info("x", 8, 3)], [info("y", None, 7)], [numpy_helper.from_array(np.array([-1, 7]), "s")],
    )  # fmt: skip
    with pytest.raises(ModelError, match="Reshape"):
        onnxq.calibrate(Model(proto), np.ones((8, 3), np.float32))


def test_random_inputs_that_do_not_suit_ask_for_data():
    proto = built(
        [helper.make_node("Reshape", ["x", "s"], ["y"])],
        [info("x", "N", 3), info("s", 2, kind=TensorProto.INT64)], [info("y", None, None)],
    )  # fmt: skip
    with pytest.raises(ModelError, match="--data"):
        onnxq.equalize(Model(proto))


# --- layers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["gpu", "cpu"])
def test_a_stack_of_matrices_runs_in_integers(target):
    """ONNX Runtime's kernels refuse scales per channel for it."""
    proto = built(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [info("x", "N", 2, 3, 4)], [info("y", "N", 2, 3, 5)], [weight("w", 2, 4, 5)],
    )  # fmt: skip
    x = RNG.standard_normal((8, 2, 3, 4)).astype(np.float32)
    quantized, _ = onnxq.quantize(Model(proto), x, target=target)
    (expected,), (got,) = (run(open_session(m), None, {"x": x}) for m in (Model(proto), quantized))
    assert np.abs(got - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("what", ["bias", "channels"])
def test_a_layer_that_contradicts_itself(what):
    """Its shapes do not fit; ONNX Runtime says so at the latest when it runs."""
    proto = built(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"])],
        [info("x", "N", 3 if what == "channels" else 4, 4, 4)], [info("y", "N", None, None, None)],
        [weight("w", 2, 4, 1, 1), weight("b", 3 if what == "bias" else 2)],
    )  # fmt: skip
    channels = proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    with pytest.raises(ModelError):
        onnxq.quantize(Model(proto), np.ones((8, channels, 4, 4), np.float32))


def test_a_damaged_record_says_nothing():
    quantized, _ = onnxq.quantize(
        Model(small()), RNG.standard_normal((8, 3, 4, 4)).astype(np.float32)
    )
    assert details(quantized).target == "gpu"
    record = json.loads(quantized.metadata[METADATA_KEY])
    del record["options"]["scheme"]
    damaged = onnxq.model.model.with_metadata(quantized, {METADATA_KEY: json.dumps(record)})
    assert not details(damaged).target


@pytest.mark.parametrize("shape", [[2, 4, 1, 1], [3, 1, 1], [1, 1, 4, 1, 1]])
def test_a_record_of_scales_that_fits_no_tensor_is_refused(shape):
    """Found by coverage-guided fuzzing: numpy could not broadcast it."""
    x = RNG.standard_normal((8, 3, 4, 4)).astype(np.float32)
    quantized, _ = onnxq.quantize(Model(small()), x)
    tensor = next(n.output for n in Graph(Model(small())).nodes if n.op_type == "Relu")
    record = [{"tensors": [tensor], "shape": shape, "scaled": {"0": 1}}]
    damaged = onnxq.model.model.with_metadata(quantized, {"onnxq.octaves": json.dumps(record)})
    with pytest.raises(ModelError, match="a scale that does not fit"):
        onnxq.validate(Model(small()), damaged, x, layers=True)


def test_a_tar_header_with_an_offset_that_no_file_has_is_refused(tmp_path):
    """Sizes in base 256 go beyond what a file can be asked to seek to."""
    header = bytearray(tarfile.TarInfo("0.png").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\x80" + b"\x7f" * 11
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    (tmp_path / "x.tar").write_bytes(bytes(header) + bytes(1024))
    inputs = Model(small()).inputs
    with pytest.raises(DataError, match=r"cannot read .*x\.tar"):
        open_tar(tmp_path / "x.tar", "x.tar", inputs, find_axes(inputs))


def test_a_scale_of_zero_has_no_levels_to_use():
    """In a QDQ model from elsewhere."""
    model = Model(small())
    x = RNG.standard_normal((16, 3, 4, 4)).astype(np.float32)
    quantized, _ = onnxq.quantize(model, x, bias_correction=False, rounding="nearest")
    proto = onnx.ModelProto()
    proto.CopyFrom(quantized.proto)
    first = next(node for node in proto.graph.node if node.op_type == "QuantizeLinear")
    scale = next(each for each in proto.graph.initializer if each.name == first.input[1])
    scale.CopyFrom(numpy_helper.from_array(np.zeros((), np.float32), scale.name))
    report = onnxq.validate(model, Model(proto), x, layers=True).layers[0]
    assert any(np.isnan(layer.causes.input_levels) for layer in report.layers)


@pytest.mark.parametrize("entry", ["halves", "maximum", "counts"])
def test_a_calibration_whose_arrays_have_other_sizes_is_refused(entry, tmp_path):
    x = RNG.standard_normal((4, 3, 4, 4)).astype(np.float32)
    content = calibration_files.to_bytes(onnxq.calibrate(Model(small()), x))
    damaged = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(damaged, "w") as new:
        for name in old.namelist():
            written = old.read(name)
            if name == f"0/{entry}.npy":
                array = np.load(io.BytesIO(written))
                stream = io.BytesIO()
                np.save(stream, array[..., :0] if entry == "halves" else array[:1].repeat(9))
                written = stream.getvalue()
            new.writestr(name, written)
    (tmp_path / "x.calib").write_bytes(damaged.getvalue())
    with pytest.raises(DataError, match="damaged"):
        calibration_files.load(tmp_path / "x.calib")
