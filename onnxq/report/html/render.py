"""Fill the template. Everything that comes from a model is escaped: node names may hold HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import onnxq
from onnxq.report import latency as latency_report
from onnxq.report import validation as validation_report
from onnxq.report.details import kernel_summary, kernel_table
from onnxq.report.html import charts
from onnxq.report.html.collect import Report
from onnxq.report.table import decibels, number

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
    environment.filters |= {"number": number, "decibels": decibels, "sortable": sortable}
    validation = report.validation
    timing = report.timing
    names = [each.name for each in (report.model, *report.quantized)]
    times = 1 if validation is None else validation.executions
    models = (report.model, *(model for model in report.quantized for _ in range(times)))
    paths = [each.source or Path(each.name) for each in models]
    return environment.get_template("report.html").render(
        report=report,
        version=onnxq.__version__,
        cards=cards(report),
        metrics=validation and validation_report.metric_table(validation, paths),
        outputs=validation and validation_report.output_table(validation, paths),
        gates=validation and validation_report.gate_table(validation),
        latency=timing and latency_report.latency_table(timing, names),
        operators=timing and latency_report.operator_table(timing, names, whole=True),
        timed=timing and latency_report.note(timing),
        kernels=[(f"{each.model}: {kernel_summary(each.kernels, each.execution)}",
                  kernel_table(each.kernels, whole=False))
                 for each in (validation.kernels if validation else ())],
        charts={"width": charts.WIDTH, "height": charts.HEIGHT, "box": charts.BOX_HEIGHT,
                "curve_width": charts.CURVE_WIDTH, "curve_height": charts.CURVE_HEIGHT},
        axis=axis,
    )  # fmt: skip


def sortable(value: float) -> str:
    """A number as the script sorts by it; "" sorts last."""
    if math.isnan(value):
        return ""
    return repr(float(value)) if math.isfinite(value) else "1e999" if value > 0 else "-1e999"


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
        text = f"{decibels(value)} dB" if unit == "dB" else f"{number(value, 4)} {unit}".strip()
        if text == "identical dB":
            text = "identical"
        beside = "against the float outputs"
        if not math.isnan(before):
            beside = f"float {number(before, 4)} {unit}".strip() + f", {value - before:+.2f}"
        numbers.append((name.upper() if name == "sqnr" else name, text, beside))
    return numbers


def axis(values: list[float]) -> dict[str, Any]:
    """A scale in dB that holds the finite values: its ends, and round numbers to mark."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min([0.0, *finite]), max([1.0, *finite])
    step = 10 if high - low <= 60 else 20
    first = math.ceil(low / step) * step
    ticks = list(range(first, math.floor(high) + 1, step))
    return {"low": low, "high": high, "span": high - low, "ticks": ticks}
