"""A validation as tables, Markdown and JUnit: what was measured is there, and nothing breaks out."""

import math
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from onnxq.closeness.parts import OutputCloseness, Part
from onnxq.commands.validate import Validation
from onnxq.report.junit import junit
from onnxq.report.markdown import markdown, step_summary
from onnxq.report.outputs import output_document, output_rows
from onnxq.report.table import table
from onnxq.report.validation import (
    cell,
    document,
    gate_table,
    gate_with_unit,
    metric_table,
    output_table,
    verdict,
)
from onnxq.validation.compare import Row
from onnxq.validation.gates import Gate

PATHS = [Path("m.onnx"), Path("m.int8.onnx")]


def output(*groups, name="y", is_float=True):
    whole = Part(name, None, (), 2.0, 31.25, 0.999)
    parts = tuple(Part(name, 1, slices, 1.0, sqnr, 0.9) for slices, sqnr in groups)
    return OutputCloseness(name, is_float, whole, parts, 0.12345, 99.5, 0.0)


def row(name="m.int8.onnx", outputs=(), decisive=None, **values):
    units = {"top1": "%", "sqnr": "dB", "cer": ""}
    return Row(name, "cpu", 1_234_567, values, {n: units[n] for n in values}, {}, decisive or {}, outputs)  # fmt: skip


def gate(value, limit=1.0, *, passed=False, unit="%", decisive="", name="max-drop"):
    return Gate(name, "m.int8.onnx", "cpu", limit, value, unit, passed, decisive)


def validation(*gates, note="", outputs=None, **values):
    values = values or {"top1": 91.5, "sqnr": 31.25}
    first = row("m.onnx", **(values | ({"sqnr": math.nan} if "sqnr" in values else {})))
    outputs = (output(((0, 1), 40.0), ((2,), 9.5)),) if outputs is None else outputs
    quantized = row(outputs=outputs, decisive={"sqnr": "y (axis 1: 2)"}, **values)
    return Validation((first, quantized), gates, 1200, note)


# --- tables ------------------------------------------------------------------------------------


def test_each_row_has_its_metrics_in_their_units():
    found = metric_table(validation(), PATHS)
    heads = [column.header for column in found.columns]
    assert heads == ["Model", "Execution", "Size (MB)", "top1 (%)", "sqnr (dB)", "Worst output"]
    assert found.rows == (
        ("m.onnx", "cpu", "1.23", "91.50", "–", ""),
        ("m.int8.onnx", "cpu", "1.23", "91.50", "31.2", "y (axis 1: 2)"),
    )
    assert cell(validation().rows[1], "top1") == "91.50"


def test_one_output_of_one_part_is_not_named():
    heads = [c.header for c in metric_table(validation(outputs=(output(),)), PATHS).columns]
    assert "Worst output" not in heads


def test_a_metric_of_several_values_has_a_column_for_each():
    result = validation(cer=3.14159265)
    rows = tuple(
        Row(r.model, r.execution, r.size, r.values, r.units, {"cer": {"CER": 3.0, "equal": 2.5}}, {}, ())
        for r in result.rows
    )  # fmt: skip
    found = metric_table(Validation(rows, (), 1, ""), PATHS)
    assert [c.header for c in found.columns][3:] == ["cer CER", "cer equal"]
    assert found.rows[0][3:] == ("3", "2.5")


def test_groups_come_below_their_output():
    assert list(output_rows(output(((0, 1), 40.0), ((2,), math.inf)))) == [
        ("y", "31.2", "0.999", "0.123", "99.5", "0"),
        ("y (axis 1: 0–1)", "40.0", "0.9", "", "", ""),
        ("y (axis 1: 2)", "identical", "0.9", "", "", ""),
    ]
    found = output_table(validation(), PATHS)
    assert [cells[:3] for cells in found.rows] == [
        ("m.int8.onnx", "cpu", name) for name in ("y", "y (axis 1: 0–1)", "y (axis 1: 2)")
    ]


def test_an_output_as_a_document():
    found = output_document(output(((2,), 9.5), is_float=False))
    assert (found["type"], found["sqnr_db"], found["equal_percent"]) == ("other", 31.25, 99.5)
    (group,) = found["groups"]
    assert math.isnan(group.pop("sqnr_error_db"))
    assert group == {"axis": 1, "slices": (2,), "rms": 1.0, "sqnr_db": 9.5, "cosine": 0.9}


def test_a_document_says_all_of_it():
    found = document(validation(gate(2)), PATHS, PATHS[1:])
    assert (found["passed"], found["samples"], found["layers"]) == (False, 1200, [])
    assert found["rows"][1]["metrics"]["sqnr"] == {
        "value": 31.25, "unit": "dB", "standard_error": None, "output": "y (axis 1: 2)",
        "values": {},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (gate(2.5), "failed: --max-drop 1 %: m.int8.onnx (cpu) is at 2.5 %, above the limit"),
        (
            gate(40.0, 50.0, unit="dB", name="min-accuracy", decisive="y"),
            "failed: --min-accuracy 50 dB: m.int8.onnx (cpu) is at 40 dB in y, below the limit",
        ),
        (
            gate(math.nan, unit=""),
            "failed: --max-drop 1: m.int8.onnx (cpu) is at –, nothing was compared",
        ),
    ],
)
def test_a_failed_gate_is_one_line(found, text):
    assert verdict(found) == text
    assert gate_with_unit(1.23456, gate(0)) == "1.235 %"


def test_gates_say_where_only_if_some_do():
    plain, where = gate_table(validation(gate(0.5, passed=True))), gate_table(validation(gate(2, decisive="y"), gate(0, passed=True)))  # fmt: skip
    assert plain.rows == (("max-drop", "m.int8.onnx", "cpu", "1 %", "0.5 %", "passed"),)
    assert [cells[-2:] for cells in where.rows] == [("failed", "y"), ("passed", "")]
    assert all(len(cells) == len(where.columns) for cells in where.rows)


# --- Markdown ----------------------------------------------------------------------------------


def test_markdown_escapes_what_would_be_read_as_its_own():
    found = markdown(table("A | >B", [["x|y*_`<b>\\", "1"], ["two\nlines", "#2"]]))
    assert found.splitlines() == [
        "| A | B |",
        "| --- | ---: |",
        r"| x\|y\*\_\`\<b\>\\ | 1 |",
        r"| two<br>lines | \#2 |",
    ]


@pytest.mark.parametrize(
    ("gates", "head"),
    [
        ((), "### onnxq validate: measured"),
        ((gate(0.5, passed=True),), "### onnxq validate: passed"),
        ((gate(0.5, passed=True), gate(2)), "### onnxq validate: failed"),
    ],
)
def test_a_step_says_first_how_it_came_out(gates, head):
    lines = step_summary(validation(*gates, note="random *samples*"), PATHS).splitlines()
    assert lines[0] == head
    assert r"1,200 samples, random \*samples\*" in lines
    assert sum(line.startswith("- failed: --max-drop") for line in lines) == (len(gates) == 2)


# --- JUnit -------------------------------------------------------------------------------------


def parsed(result, paths=PATHS):
    text = junit(result, paths)
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n')
    return ET.fromstring(text.encode())


def test_each_gate_is_a_case():
    root = parsed(validation(gate(0.5, passed=True), gate(2.0, 1.5)))
    assert {key: root.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "2", "failures": "1", "errors": "0", "skipped": "0"
    }  # fmt: skip
    passed, failed = root.iter("testcase")
    assert (passed.get("name"), passed.get("classname")) == ("--max-drop 1 %", "m.int8.onnx (cpu)")
    assert passed.find("failure") is None
    failure = failed.find("failure")
    assert (failure.get("type"), failure.text) == ("max-drop", verdict(gate(2.0, 1.5)))
    assert failure.get("message") == failure.text


def test_without_gates_one_case_passed_with_the_metrics():
    root = parsed(validation())
    assert (root.get("tests"), root.get("failures")) == ("1", "0")
    (case,) = root.iter("testcase")
    assert case.get("name") == "validate"
    found = {each.get("name"): each.get("value") for each in root.iter("property")}
    assert found == {
        "samples": "1200",
        "m.onnx (cpu) top1": "91.5 %",
        "m.onnx (cpu) sqnr": "– dB",
        "m.int8.onnx (cpu) top1": "91.5 %",
        "m.int8.onnx (cpu) sqnr": "31.2 dB",
    }


def test_what_xml_cannot_hold_is_replaced():
    paths = [Path("a\x00<b>&\"'\ud800"), Path("tab\tnew\nline \x1b")]
    root = parsed(validation(gate(2, decisive="\x07bell")), paths)
    names = [each.get("name") for each in root.iter("property")]
    assert any(name.startswith("a?<b>&\"'? (cpu)") for name in names)
    assert any("\x1b" not in name and name.endswith("? (cpu) top1") for name in names)
    (failure,) = root.iter("failure")
    assert "in ?bell" in failure.text
