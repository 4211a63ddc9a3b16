"""The rules of targets: each is broken by a model that differs from a sound one in one thing."""

import numpy as np
import onnx
import onnxq
import pytest
from onnx import numpy_helper, parser
from onnxq.cli.hook import main as hook
from onnxq.errors import UsageError
from onnxq.model.model import Model
from onnxq.targets import shipped_targets, target_named
from onnxq.validation.lint import RULES, lint

from support.cli_case import run
from support.testdata import TESTDATA, images, uneven

SOUND = """<ir_version: 9, opset_import: ["": 19]>
g (float[1,4,6,6] x) => (float[1,4,6,6] y) {
    xq = QuantizeLinear(x, s, z)
    xd = DequantizeLinear(xq, s, z)
    w1 = DequantizeLinear<axis = 0>(w, ws, wz)
    a = Conv<pads = [1,1,1,1]>(xd, w1, b)
    r = Relu(a)
    rq = QuantizeLinear(r, s, z)
    rd = DequantizeLinear(rq, s, z)
    w2 = DequantizeLinear<axis = 0>(w, ws, wz)
    c = Conv<pads = [1,1,1,1]>(rd, w2, b)
    sum = Add(c, rd)
    k = Concat<axis = 1>(xd, rd)
    y = Add(sum, half)
}"""

INT8 = np.int8(0)
VALUES = {
    "s": np.float32(0.1), "z": INT8, "s2": np.float32(0.2), "z3": np.int8(3), "zu": np.uint8(0),
    "s0": np.float32(0), "w": np.ones((4, 4, 3, 3), np.int8), "ws": np.full(4, 0.1, np.float32),
    "wz": np.zeros(4, np.int8), "b": np.ones(4, np.float32), "half": np.float32(0.5),
    "wf": np.ones((4, 4, 3, 3), np.float32), "bi": np.ones(4, np.int32),
    "sx": np.full(4, 0.1, np.float32), "zx": np.zeros(4, np.int8), "s16": np.float16(0.1),
}  # fmt: skip


def model_of(text: str) -> Model:
    proto = parser.parse_model(text)
    for name, value in VALUES.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    return Model(onnx.shape_inference.infer_shapes(proto), None)


BREAKS = {
    "scale": [("xq = QuantizeLinear(x, s, z)", "xq = QuantizeLinear(x, s0, z)")],
    "format": [("rq = QuantizeLinear(r, s, z)", "rq = QuantizeLinear(r, s, zu)"),
             ("rd = DequantizeLinear(rq, s, z)", "rd = DequantizeLinear(rq, s, zu)")],
    "zero-point": [("rq = QuantizeLinear(r, s, z)", "rq = QuantizeLinear(r, s, z3)"),
                   ("rd = DequantizeLinear(rq, s, z)", "rd = DequantizeLinear(rq, s, z3)")],
    "bias": [("c = Conv<pads = [1,1,1,1]>(rd, w2, b)",
              "bd = DequantizeLinear(bi, s) c = Conv<pads = [1,1,1,1]>(rd, w2, bd)")],
    "weight-axis": [("w2 = DequantizeLinear<axis = 0>", "w2 = DequantizeLinear<axis = 1>")],
    "activation-scale": [("xq = QuantizeLinear(x, s, z)", "xq = QuantizeLinear(x, sx, zx)"),
                         ("xd = DequantizeLinear(xq, s, z)", "xd = DequantizeLinear(xq, sx, zx)")],
    "half-quantized": [("c = Conv<pads = [1,1,1,1]>(rd, w2, b)",
                        "c = Conv<pads = [1,1,1,1]>(rd, wf, b)")],
    "fusion": [("r = Relu(a)", """aq = QuantizeLinear(a, s, z)
                ad = DequantizeLinear(aq, s, z)  r = Relu(ad)""")],
    "residual": [("sum = Add(c, rd)", "sum = Add(c, r)")],
    "concat": [("rq = QuantizeLinear(r, s, z)", "rq = QuantizeLinear(r, s2, z)"),
               ("rd = DequantizeLinear(rq, s, z)", "rd = DequantizeLinear(rq, s2, z)")],
    "operator": [("y = Add(sum, half)", "m = ConvInteger(xq, w) y = Add(sum, half)")],
    "opset": [('"": 19', '"": 12')],
}  # fmt: skip
"""Rule → what to write instead."""


def test_a_sound_model_has_no_findings():
    assert lint(model_of(SOUND)) == ()


def test_every_rule_has_a_model_that_breaks_it():
    assert set(BREAKS) == {rule.id for rule in RULES}


@pytest.mark.parametrize("rule", BREAKS)
def test_what_breaks_a_rule_is_found(rule):
    text = SOUND
    for old, new in BREAKS[rule]:
        assert old in text
        text = text.replace(old, new)
    findings = lint(model_of(text))
    assert {each.rule for each in findings} == {rule}
    assert all(each.node and each.detail and each.advice for each in findings)


def test_nodes_without_names_are_called_by_their_output():
    model = model_of(SOUND.replace("c = Conv<pads = [1,1,1,1]>(rd, w2, b)", BREAKS["bias"][0][1])
                     .replace("xq = QuantizeLinear(x, s, z)", "xq = QuantizeLinear(x, s, z3)"))  # fmt: skip
    for node in model.proto.graph.node:
        node.name = ""
    assert {(each.rule, each.node) for each in lint(model)} == {
        ("bias", "bd"),
        ("zero-point", "xq"),
    }


@pytest.mark.parametrize("rest", ["fp32", "fp16"])
@pytest.mark.parametrize("weights", ["per-channel", "per-tensor"])
def test_what_is_written_for_the_gpu_breaks_none(weights, rest):
    for name in ("squeezenet", "mobilenetv2"):
        model = onnxq.load(TESTDATA / f"{name}.onnx")
        int8, _ = onnxq.quantize(model, images("calibration", 16), weights=weights, rest=rest,
                                 rounding="nearest", bias_correction=False)  # fmt: skip
        assert lint(int8) == ()


FLOAT = """<ir_version: 9, opset_import: ["": 19]>
g (float[n,4,6,6] x) => (float[n,4,6,6] y) { a = Conv<pads = [1,1,1,1]>(x, wf, b) y = Relu(a) }"""


def made_for(target):
    data = {"x": np.random.default_rng(0).standard_normal((16, 4, 6, 6), np.float32)}
    return onnxq.quantize(model_of(FLOAT), data, target=target)[0]


def rules(inspection):
    return {each.rule for each in inspection.findings}


@pytest.mark.parametrize("target", shipped_targets())
def test_a_model_is_checked_against_the_target_it_was_made_for(target):
    int8 = made_for(target)
    found = onnxq.inspect(int8, lint=True)
    assert (found.findings, found.rules_of) == ((), target)
    for other in shipped_targets():
        against = onnxq.inspect(int8, lint=True, target=other)
        assert against.rules_of == other
        if other == "gpu" and target != "gpu":
            assert {"format", "zero-point", "bias"} <= rules(against)
        else:
            assert not against.findings


@pytest.mark.parametrize("target", shipped_targets())
def test_the_rules_of_its_target_are_found_broken(target):
    proto = onnx.ModelProto()
    proto.CopyFrom(made_for(target).proto)
    quantize = next(n for n in proto.graph.node if n.op_type == "QuantizeLinear")
    scale = next(t for t in proto.graph.initializer if t.name == quantize.input[1])
    scale.CopyFrom(numpy_helper.from_array(np.float32(0), scale.name))
    found = onnxq.inspect(Model(proto), lint=True)
    assert rules(found) == {"scale"}
    assert found.rules_of == target


def test_another_tools_model_is_checked_against_tensorrts_rules():
    text = SOUND
    for old, new in BREAKS["zero-point"]:
        text = text.replace(old, new)
    found = onnxq.inspect(model_of(text), lint=True)
    assert (rules(found), found.rules_of) == ({"zero-point"}, "gpu")
    assert onnxq.inspect(model_of(text), lint=True, target="cpu").findings == ()


def test_a_model_for_a_target_of_ones_own_needs_its_file(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('base = "cpu"\nlint = ["zero-point"]\n')
    model = tmp_path / "m.onnx"
    onnxq.save(made_for(file), model)
    refused = run("inspect", model, "--lint")
    assert refused.code == 2
    assert "made for the target 'mine'" in refused.err
    assert "--target mine.toml" in refused.err
    named = run("inspect", model, "--lint", "--target", file)
    assert named.code == 1
    assert "Rules of target mine: 1 rule broken in" in named.out
    assert run("inspect", model, "--lint", "--target", "cpu", "--json").json["rules_of"] == "cpu"
    alone = run("inspect", model, "--target", "cpu")
    assert alone.code == 2
    assert "give --lint too" in alone.err


def test_a_rule_that_there_is_not_is_named(tmp_path):
    (tmp_path / "mine.toml").write_text('base = "gpu"\nlint = ["zero-points"]\n')
    with pytest.raises(UsageError, match="there is no rule 'zero-points'"):
        lint(model_of(SOUND), target_named(str(tmp_path / "mine.toml")))


def test_the_hook_names_what_breaks_a_rule(tmp_path, capsys):
    """It looks at all files, and says of each node which rule it breaks."""
    (before, after), *_ = BREAKS["residual"]
    paths = {name: str(tmp_path / f"{name}.onnx") for name in ("sound", "broken", "float")}
    for name, text in (("sound", SOUND), ("broken", SOUND.replace(before, after))):
        onnx.save(model_of(text).proto, paths[name])
    onnx.save(uneven().proto, paths["float"])
    assert hook([paths["sound"], paths["float"]]) == 0
    assert capsys.readouterr().out == ""
    assert hook([paths["broken"], paths["sound"]]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{paths['broken']}: Add_")
    assert ": residual: " in line
    (tmp_path / "none.onnx").write_text("no model")
    assert hook([paths["broken"], str(tmp_path / "none.onnx")]) == 3
    assert "error: " in capsys.readouterr().err
