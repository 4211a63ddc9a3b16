"""`scripts/same_bytes.py` tells apart equal files, other metadata and other numbers."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnxq import api
from onnxq.calibration import files

from support.builder import Builder

ROOT = Path(__file__).parents[1]


def load_script():
    """The script as a module; scripts/ is no package."""
    spec = importlib.util.spec_from_file_location("same_bytes", ROOT / "scripts" / "same_bytes.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look there for their annotations
    spec.loader.exec_module(module)
    return module


same_bytes = load_script()


def network():
    b = Builder(1)
    return b.model(b.conv(b.op("Relu", b.conv(b.input(3, 6, 6), 4, 3)), 2))


def compare(before, after):
    sides = (before, after)
    contents = [x.SerializeToString() if isinstance(x, onnx.ModelProto) else x for x in sides]
    verdict = same_bytes.compare(*(same_bytes.Made(0, content, "") for content in contents))
    return verdict.kind, verdict.detail


def changed(change):
    source = network().proto
    other = onnx.ModelProto()
    other.CopyFrom(source)
    change(other)
    return compare(source, other)


def test_equal_files():
    assert changed(lambda _proto: None) == ("same", "")


def test_metadata_only_is_said_with_its_keys():
    kind, detail = changed(lambda proto: helper.set_model_props(proto, {"onnxq.note": "1"}))
    assert (kind, detail) == ("metadata only", "onnxq.note")


def test_the_first_values_that_differ():
    def change(proto):
        tensor = proto.graph.initializer[0]
        values = numpy_helper.to_array(tensor).copy()
        values.ravel()[5:7] = 0.5
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    tensor = network().proto.graph.initializer[0]
    values = numpy_helper.to_array(tensor).ravel()
    assert changed(change) == (
        "DIFFERENT",
        f"1 initializers, first {tensor.name!r}: 2 of {values.size} values, first {values[5]!s} against 0.5",
    )


def test_a_node_comes_before_the_initializers():
    def change(proto):
        proto.graph.node[1].op_type = "Sigmoid"
        del proto.graph.initializer[0]

    kind, detail = changed(change)
    assert kind == "DIFFERENT"
    assert "(Relu) against" in detail
    assert detail.endswith("(Sigmoid): op_type")


def test_what_else_a_model_holds():
    kind, detail = changed(lambda proto: setattr(proto, "ir_version", 9))
    assert kind == "metadata only"
    assert detail.startswith("ir_version ")
    assert detail.endswith(" before, 9 now")
    kind, detail = changed(lambda proto: setattr(proto, "producer_name", "another"))
    assert (kind, detail) == ("DIFFERENT", "model: producer_name")
    kind, detail = changed(lambda proto: setattr(proto.graph, "doc_string", "new"))
    assert (kind, detail) == ("DIFFERENT", "graph: doc_string")


def test_calibrations_may_differ_in_the_version_only(monkeypatch, rng):
    data = rng.standard_normal((8, 3, 6, 6)).astype(np.float32)
    before = files.to_bytes(api.calibrate(network(), data))
    assert compare(before, before) == ("same", "")
    other = files.to_bytes(api.calibrate(network(), data[:6]))
    assert compare(before, other)[0] == "DIFFERENT"
    monkeypatch.setattr("onnxq.__version__", "9.9")
    newer = files.to_bytes(api.calibrate(network(), data))
    assert compare(before, newer) == ("metadata only", "header: onnxq")


@pytest.mark.parametrize(
    ("codes", "contents", "kind"),
    [
        ((3, 3), (None, None), "refused"),
        ((3, 2), (None, None), "DIFFERENT"),
        ((0, 3), (b"x", None), "DIFFERENT"),
        ((0, 1), (b"x", b"x"), "DIFFERENT"),
    ],
)
def test_exit_codes_count(codes, contents, kind):
    sides = [
        same_bytes.Made(code, content, "why") for code, content in zip(codes, contents, strict=True)
    ]
    assert same_bytes.compare(*sides).kind == kind


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the history")
def test_the_command_compares_two_trees():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "same_bytes.py", "HEAD", "--quick",
         "--only", "^squeezenet gpu.*minmax"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "2 cases" in done.stdout, done.stderr
    # Whoever is changing bytes now sees the table; here it is only whether one is made.
    assert done.returncode in {0, 1}
    assert "squeezenet calibrate" in done.stdout
