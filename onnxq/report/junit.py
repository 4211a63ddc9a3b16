"""A validation as JUnit XML, which CI systems show: one test case for each gate."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from onnxq.report.table import in_decibels, number
from onnxq.report.validation import gate_with_unit, verdict

if TYPE_CHECKING:
    from onnxq.commands.validate import Validation


def junit(result: Validation, paths: Sequence[Path]) -> str:
    """The document; a validation without gates is one case that passed, with its metrics.

    Args:
        result: the validation.
        paths: the model file of each row.
    """
    failed = sum(not gate.passed for gate in result.gates)
    cases = len(result.gates) or 1
    counts = {"tests": str(cases), "failures": str(failed), "errors": "0", "skipped": "0"}
    root = ET.Element("testsuites", counts)
    suite = ET.SubElement(root, "testsuite", {"name": "onnxq validate", **counts})
    properties = ET.SubElement(suite, "properties")
    _property(properties, "samples", str(result.samples))
    for path, row in zip(paths, result.rows, strict=True):
        for name, value in row.values.items():
            unit = row.units[name]
            text = in_decibels(value) if unit == "dB" else f"{number(value, 6)} {unit}".rstrip()
            _property(properties, f"{path} ({row.execution}) {name}", text)
    for gate in result.gates:
        name = f"--{gate.name} {gate_with_unit(gate.limit, gate)}"
        case = ET.SubElement(
            suite, "testcase", {"classname": f"{gate.model} ({gate.execution})", "name": name}
        )
        if not gate.passed:
            text = _legal(verdict(gate))
            ET.SubElement(case, "failure", {"message": text, "type": gate.name}).text = text
    if not result.gates:
        ET.SubElement(suite, "testcase", {"classname": "onnxq", "name": "validate"})
    for element in root.iter():
        element.attrib.update({key: _legal(value) for key, value in element.attrib.items()})
    ET.indent(root)
    body = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _property(parent: ET.Element, name: str, value: str) -> None:
    ET.SubElement(parent, "property", {"name": name, "value": value})


_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold."""


def _legal(text: str) -> str:
    return _ILLEGAL.sub("?", text)
