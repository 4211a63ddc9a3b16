"""What `validate` writes for CI systems: JUnit and the step summary of GitHub Actions."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from support.cli_case import Case, run

GATES = ("--metric", "top1", "--max-drop", "100", "--min-accuracy", "100")


def test_junit_has_a_case_for_each_gate(quantized: Case):
    target = quantized.folder / "junit.xml"
    data = ("--data", quantized.data, "--junit", target)
    result = run("validate", quantized.model, quantized.out, *data, *GATES)
    assert result.code == 1
    suite = ET.parse(target).getroot().find("testsuite")
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == [
        "--min-accuracy 100 %", "--max-drop 100 %", "--min-accuracy 100 %",
    ]  # fmt: skip
    assert [case.find("failure") is None for case in cases] == [False, True, False]
    assert (suite.get("tests"), suite.get("failures")) == ("3", "2")
    document = run("validate", quantized.model, quantized.out, "--data", quantized.data, *GATES,
                   "--json").json  # fmt: skip
    top1 = document["rows"][1]["metrics"]["top1"]["value"]
    properties = {each.get("name"): each.get("value") for each in suite.iter("property")}
    assert float(properties[f"{quantized.out} (emulate) top1"].split()[0]) == pytest.approx(
        top1, rel=1e-4
    )
    assert properties["samples"] == "24"


def test_junit_without_gates_is_one_case_that_passed(quantized: Case):
    target = quantized.folder / "junit.xml"
    result = run("validate", quantized.model, quantized.out, "--data", quantized.data,
                 "--junit", target)  # fmt: skip
    assert result.code == 0
    suite = ET.parse(target).getroot().find("testsuite")
    assert (suite.get("tests"), suite.get("failures")) == ("1", "0")


def test_junit_never_replaces_an_input(quantized: Case):
    before = quantized.out.read_bytes()
    result = run("validate", quantized.model, quantized.out, "--data", quantized.data,
                 "--junit", quantized.out)  # fmt: skip
    assert result.code == 2
    assert quantized.out.read_bytes() == before


def test_the_step_summary_is_appended_as_markdown(quantized: Case, monkeypatch: pytest.MonkeyPatch):
    summary = quantized.folder / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    result = run("validate", quantized.model, quantized.out, "--data", quantized.data, *GATES)
    assert result.code == 1
    lines = summary.read_text().splitlines()
    assert lines[:2] == ["before", "### onnxq validate: failed"]
    assert "| Model | Execution | Size (MB) | top1 (%) |" in lines
    assert "| --- | --- | ---: | ---: |" in lines
    assert sum(line.startswith("| ") for line in lines) == 2 + 2 + 2 + 3
    assert any("failed: --min-accuracy" in line for line in lines)


def test_markup_in_names_does_not_become_markup(quantized: Case, monkeypatch: pytest.MonkeyPatch):
    odd = quantized.folder / "a|b_*<b>.onnx"
    odd.write_bytes(quantized.out.read_bytes())
    summary = quantized.folder / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    run("validate", quantized.model, odd, "--data", quantized.data, "--metric", "sqnr")
    assert r"a\|b\_\*\<b\>.onnx" in summary.read_text()


def test_a_summary_that_cannot_be_written_is_one_line(
    quantized: Case, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(Path("/nowhere/summary.md")))
    result = run("validate", quantized.model, quantized.out, "--data", quantized.data)
    assert result.code == 2
    assert "cannot append to /nowhere/summary.md" in result.err
