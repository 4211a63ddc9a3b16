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
    "zm": np.uint8(128), "mi": np.ones((6, 6), np.int8), "s6": np.full(6, 0.1, np.float32),
    "zb": np.int32(0),
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
    assert set(BREAKS) | set(BREAKS_ELSEWHERE) == {rule.id for rule in RULES}


NPU = """<ir_version: 9, opset_import: ["": 19]>
g (float[1,4,6,6] x, float[1,6] v) => (float[1,4,6,6] y, float[1,6] p) {
    xq = QuantizeLinear(x, s, zm)  xd = DequantizeLinear(xq, s, zm)
    w1 = DequantizeLinear<axis = 0>(w, ws, wz)  b1 = DequantizeLinear(bi, s)
    a = Conv<pads = [1,1,1,1]>(xd, w1, b1)  r = Relu(a)
    rq = QuantizeLinear(r, s, zu)  y = DequantizeLinear(rq, s, zu)
    vq = QuantizeLinear(v, s, zm)  vd = DequantizeLinear(vq, s, zm)
    m = DequantizeLinear(mi, s)  t = MatMul(vd, m)
    tq = QuantizeLinear(t, s, zm)  p = DequantizeLinear(tq, s, zm)
}"""

JOINED = """<ir_version: 9, opset_import: ["": 19]>
g (float[1,2,6,6] x) => (float[1,4,6,6] y) {
    xq = QuantizeLinear(x, s, zm)  xd = DequantizeLinear(xq, s, zm)
    k = Concat<axis = 1>(xd, xd)
    kq = QuantizeLinear(k, s, zm)  kd = DequantizeLinear(kq, s, zm)
    w1 = DequantizeLinear<axis = 0>(w, ws, wz)
    c = Conv<pads = [1,1,1,1]>(kd, w1, b)
    e = Conv<pads = [1,1,1,1]>(kd, w1, b)
    y = Concat<axis = 0>(c, e)
}"""

BREAKS_ELSEWHERE = {
    "shapes": ("qnn", NPU, [("float[1,4,6,6] x", "float[n,4,6,6] x")]),
    "weight-scales": ("qnn", NPU, [("(mi, s)", "<axis = 1>(mi, s6)")]),
    "implied": ("qnn", NPU, [("(r, s, zu)", "(r, s, zm)"), ("(rq, s, zu)", "(rq, s, zm)")]),
    "quantized-result": ("qnn", NPU, [("(t, s, zm)", "(v, s, zm)"), ("=> (", "=> (float[1,6] t, ")]),
    "bias-zero-point": ("web", NPU, [("(bi, s)", "(bi, s, zb)")]),
    "signed-concat": ("openvino", JOINED, [("zm", "z")]),
    "float-concat": ("openvino", JOINED, [
        ("e = Conv", "cq = QuantizeLinear(c, s, zm) cd = DequantizeLinear(cq, s, zm) e = Conv"),
        ("(c, e)", "(cd, cd)"),
    ]),
}  # fmt: skip
"""Rule → a target that has it, a sound model, and what to write instead."""


@pytest.mark.parametrize("rule", BREAKS_ELSEWHERE)
def test_what_breaks_a_rule_of_another_runtime_is_found(rule):
    target, text, changes = BREAKS_ELSEWHERE[rule]
    assert lint(model_of(text), target_named(target)) == ()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    findings = lint(model_of(text), target_named(target))
    assert {each.rule for each in findings} == {rule}
    assert all(each.node and each.detail and each.advice for each in findings)


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
                                 rounding="nearest", bias_correction=False,
                                 effort="fast")  # fmt: skip
        assert lint(int8) == ()


FLOAT = """<ir_version: 9, opset_import: ["": 19]>
g (float[n,4,6,6] x) => (float[n,4,6,6] y) { a = Conv<pads = [1,1,1,1]>(x, wf, b) y = Relu(a) }"""


def made_for(target):
    data = {"x": np.random.default_rng(0).standard_normal((16, 4, 6, 6), np.float32)}
    return onnxq.quantize(model_of(FLOAT), data, target=target, input_shapes=["1x4x6x6"])[0]


def rules(inspection):
    return {each.rule for each in inspection.findings}


@pytest.mark.parametrize("target", shipped_targets())
def test_a_model_is_checked_against_the_target_it_was_made_for(target):
    int8 = made_for(target)
    found = onnxq.inspect(int8, lint=True)
    assert (found.findings, found.rules_of) == ((), target)
    # All take what is written for the CPU, but these; and layers that end in float run on two.
    whole = {"cpu", "qnn", "web", "cpu-arm64", "gpu-dla"}
    for other in shipped_targets():
        against = onnxq.inspect(int8, lint=True, target=other)
        assert against.rules_of == other
        broken = rules(against)
        if other.startswith("gpu") and not target.startswith("gpu"):
            assert "zero-point" in broken
            assert ("format" in broken) == (target != "cpu-arm64")
            assert ("bias" in broken) == (target != "openvino")
        elif other == "qnn" and target != "qnn":
            assert ("quantized-result" in broken) == (target not in whole)
            assert ("implied" in broken) == (target == "gpu-dla")
        else:
            assert not broken


@pytest.mark.parametrize("target", ["qnn", "openvino", "gpu-dla"])
def test_an_open_size_is_told_where_the_target_wants_to_know_it(target):
    data = {"x": np.random.default_rng(0).standard_normal((16, 4, 6, 6), np.float32)}
    int8, _ = onnxq.quantize(model_of(FLOAT), data, target=target)
    (finding,) = onnxq.inspect(int8, lint=True).findings
    assert (finding.rule, finding.detail) == ("shapes", "the input 'x' is n×4×6×6")
    assert "--input-shape" in finding.advice


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
