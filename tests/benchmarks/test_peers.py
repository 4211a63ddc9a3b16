"""benchmarks/peers: the contract between the command and its drivers, on a tiny model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from support.masked import encoder, save_feeds, sentences

ROOT = Path(__file__).parent.parent.parent
PEERS = ROOT / "benchmarks" / "peers"


@pytest.fixture
def case(tmp_path, rng):
    """A convolution with two classes, and samples for it with the labels that it gives them."""
    weight = rng.normal(size=(2, 3, 4, 4)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "weight"], ["features"], name="conv"),
            helper.make_node("Flatten", ["features"], ["logits"], name="flatten"),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "tiny.onnx")
    images = rng.normal(size=(20, 3, 4, 4)).astype(np.float32)
    labels = np.einsum("nchw,kchw->nk", images, weight).argmax(1)
    np.savez(tmp_path / "samples.npz", image=images, labels=labels)
    return tmp_path


def peers(case, *options, data=None, **environment):
    samples = str(data or case / "samples.npz")
    done = subprocess.run(
        [sys.executable, str(PEERS / "run.py"), str(case / "tiny.onnx"), "--calibration", samples,
         "--test", samples, "--cache", str(case / "cache"), *options],
        capture_output=True, text=True, check=True, env={**os.environ, **environment},
    )  # fmt: skip
    rows = [line.strip("|").split("|") for line in done.stdout.splitlines() if line[:2] == "| "]
    return {(row[0].strip(), row[1].strip()): [cell.strip() for cell in row[2:]] for row in rows}


def test_a_tool_is_measured_and_a_tool_that_fails_says_why(case):
    rows = peers(
        case,
        *("--mode", "min-?max|mixed", "--keep", str(case / "kept")),
        *("--only", "onnxruntime", "--interpreter", f"onnxruntime={sys.executable}"),
        *("--only", "aimet-onnx", "--interpreter", f"aimet-onnx={sys.executable}"),
        *("--only", "nncf", "--interpreter", f"nncf={case / 'no-python'}"),
    )
    measured = rows["onnxruntime 1.32.0, minmax", "per channel"]
    top1, sqnr, _, _, megabytes, _ = map(float, measured)
    assert top1 >= 90
    assert 20 < sqnr < 60
    assert 20 < megabytes < 1000
    int8 = case / "kept" / "onnxruntime-1.onnx"
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(int8).graph.node}
    (record,) = case.glob("cache/results/*/onnxruntime.json")
    row = json.loads(record.read_text())["rows"]["minmax, per channel"]
    assert row["seconds"] > 0.1
    assert row["cpu_seconds"] > 0.1
    assert row["file_megabytes"] * 2**20 == int8.stat().st_size
    failed = rows["aimet-onnx 2.42.0, min-max", "per channel"][0]
    assert failed == "failed: ModuleNotFoundError: No module named 'aimet_onnx'"
    failed = rows["nncf 3.4.0, mixed, full bias correction", "per channel"][0]
    assert failed == f"failed: cannot start {case / 'no-python'}: No such file or directory"
    assert rows["aimet-onnx 2.42.0, SeqMSE", "per channel"][0] == "not run (--slow runs it)"

    assert rows["onnxruntime 1.32.0, entropy", "per channel"][0] == "not run"

    again = peers(case, "--only", "none")
    assert again == rows


def test_a_tool_that_cannot_be_installed_says_why(case):
    rows = peers(case, "--only", "nncf", PIP_NO_INDEX="1", PIP_CONFIG_FILE=os.devnull)
    failed = rows["nncf 3.4.0, mixed, full bias correction", "per channel"][0]
    assert failed.startswith("failed: cannot be installed: ERROR: No matching distribution found")


def test_a_tool_that_takes_too_long_is_stopped(case):
    rows = peers(
        case,
        *("--only", "onnxruntime", "--interpreter", f"onnxruntime={sys.executable}"),
        *("--mode", "minmax, per tensor", "--limit", "0.1"),
    )
    assert rows["onnxruntime 1.32.0, minmax", "per tensor"][0] == "failed: stopped after 0.1 s"


@pytest.mark.slow
def test_a_model_of_tokens_is_measured_by_any_metric(tmp_path):
    """Samples of several lengths, as texts are; a metric of onnxq's and one of a file."""
    onnx.save(encoder().proto, tmp_path / "tiny.onnx")
    save_feeds(sentences(20), tmp_path / "samples")
    (tmp_path / "mine.py").write_text("def largest(output, labels):\n    return [0.5]\n")
    rows = peers(
        tmp_path,
        *("--transformer", "--metric", "sqnr", "--metric", f"{tmp_path / 'mine.py'}:largest"),
        *("--metric", f"{PEERS / 'pooled.py'}:PooledSqnr", "--keep", str(tmp_path / "kept")),
        *("--only", "onnxruntime", "--interpreter", f"onnxruntime={sys.executable}"),
        *("--only", "onnxq", "--mode", "dynamic, per channel|--target cpu`"),
        data=tmp_path / "samples",
    )
    for tool in ("onnxruntime 1.32.0, dynamic", "onnxq, `--target cpu`"):
        sqnr, largest, pooled, *_ = map(float, rows[tool, "per channel"])
        assert 15 < sqnr < 60
        assert largest == 0.5
        assert 15 < pooled < 70
    model = onnx.load(tmp_path / "kept" / "onnxruntime-1.onnx")
    assert "DynamicQuantizeLinear" in {node.op_type for node in model.graph.node}
    assert rows["onnxruntime 1.32.0, MatMulNBits, 4 bits", "blocks"][0] == "not run"
    assert not any("aimet" in name for name, _ in rows)


def test_sixteen_bits_are_written_by_the_tools_own_nodes(case):
    rows = peers(
        case,
        *("--wide", "--keep", str(case / "kept")),
        *("--only", "onnxruntime", "--interpreter", f"onnxruntime={sys.executable}"),
    )
    name = "onnxruntime 1.32.0, uint16 activations, minmax"
    top1, sqnr, *_ = map(float, rows[name, "per channel"])
    assert top1 >= 90
    assert 20 < sqnr < 70
    graph = onnx.load(case / "kept" / "onnxruntime-0.onnx").graph
    types = {each.name: each.data_type for each in graph.initializer}
    quantizers = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert {node.domain for node in quantizers} == {"com.microsoft"}
    assert {types[node.input[2]] for node in quantizers} == {TensorProto.UINT16}
    assert rows["aimet-onnx 2.42.0, int16 activations, min-max", "per channel"][0] == "not run"
