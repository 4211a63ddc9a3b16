"""Fill the template. Everything that comes from a model is escaped: node names may hold HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import onnxq
from onnxq.report import validation as validation_report
from onnxq.report.html.collect import Report
from onnxq.report.html.document import as_json
from onnxq.report.html.libraries import SCRIPTS, STYLES, contents
from onnxq.report.table import in_decibels, number

TEMPLATES = Path(__file__).parent / "templates"


def render(report: Report) -> str:
    """The page, whole; the same report gives the same bytes."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        report=report,
        version=onnxq.__version__,
        cards=cards(report),
        # The document and the libraries are safe as they are: the first escapes what HTML reads.
        data=Markup(as_json(report)),  # noqa: S704
        styles=Markup(contents(STYLES)),  # noqa: S704
        libraries=Markup(contents(SCRIPTS)),  # noqa: S704
    )


def cards(report: Report) -> list[dict[str, Any]]:
    """The verdict on each quantized model: a word, and three numbers beside the float model's."""
    if not report.quantized:
        return []
    rows = report.validation.rows if report.validation else ()
    times = report.validation.executions if report.validation else 1
    # The gates of quantized models, in the order of their rows; models may share a name.
    checked = [each for each in (report.validation.gates if report.validation else ())
               if (each.model, each.execution) != (rows[0].model, rows[0].execution)]  # fmt: skip
    per_model = len(checked) // len(report.quantized)
    found = []
    for index, model in enumerate(report.quantized):
        gates = checked[index * per_model : (index + 1) * per_model]
        failed = [each for each in gates if not each.passed]
        word = "failed" if failed else "passed" if gates else "measured" if rows else "not measured"
        numbers = []
        if rows:
            numbers += _metrics(rows[0].values, rows[index * times + 1].values, rows[0].units)
        ratio = model.size / max(report.model.size, 1)
        numbers.append(
            ("Size", f"{model.size / 1e6:.3g} MB", f"{100 * ratio:.0f} % of the float model")
        )
        found.append({
            "name": model.name, "word": word, "numbers": numbers, "id": f"m{index + 1}",
            "failed": [validation_report.verdict(each) for each in failed],
        })  # fmt: skip
    return found


def _metrics(
    exact: Mapping[str, float], found: Mapping[str, float], units: Mapping[str, str]
) -> list[tuple[str, str, str]]:
    numbers = []
    for name, value in found.items():
        unit, before = units[name], exact[name]
        if name == "cosine":
            continue
        text = in_decibels(value) if unit == "dB" else f"{number(value, 4)} {unit}".strip()
        beside = "against the float outputs"
        if not math.isnan(before):
            beside = f"float {number(before, 4)} {unit}".strip() + f", {value - before:+.2f}"
        numbers.append((name.upper() if name == "sqnr" else name, text, beside))
    return numbers
