"""All that the page shows as one JSON document, which its scripts draw and a reader can save."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import onnxq
from onnxq.report import latency as latency_report
from onnxq.report import validation as validation_report
from onnxq.report.details import kernel_summary, kernel_table
from onnxq.report.html.collect import Report
from onnxq.report.html.libraries import LIBRARIES
from onnxq.report.html.model_document import Texts, view_document
from onnxq.report.html.plain import plain, plain_table


def document(report: Report) -> dict[str, Any]:
    """The document; numbers that JSON has none for are null, "inf" and "-inf"."""
    names = _union(report)
    numbers = {name: number for number, name in enumerate(names)}
    operators = _operators(report)
    timing = report.timing
    texts = Texts()
    return {
        "onnxq": onnxq.__version__,
        "title": report.model.name,
        "models": [_model(report, index) for index in range(len(report.quantized) + 1)],
        "calibrated": report.calibrated,
        "nodes": [{"name": name, "operator": operators[name]} for name in names],
        "views": [view_document(each, numbers, texts) for each in report.views],
        "texts": texts,
        "graph": _graph(report, numbers),
        "measured": _measured(report),
        "samples": _samples(report),
        "sizes": [
            {"kinds": each.kinds, "whole": each.whole,
             "layers": _by_number(each.layers, numbers),
             "stored": _by_number(each.stored, numbers)}
            for each in report.sizes
        ],
        "advice": report.advice,
        "latency": timing and {
            **latency_report.document(timing, [each.name for each in report.every]),
            "told": latency_report.note(timing),
            "table": plain_table(latency_report.latency_table(timing, report.names)),
        },
        "libraries": LIBRARIES,
    }  # fmt: skip


def as_json(report: Report) -> str:
    """The document as text that an HTML script element may hold."""
    text = json.dumps(
        plain(document(report)), ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
    # What could end the element, or is no JavaScript, is written as JSON's escapes.
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _union(report: Report) -> list[str]:
    """The nodes of all models, in the order of the first graph that has them."""
    graphs = [report.picture.nodes, *([(each.name, "") for each in view.layers]
                                      for view in report.views)]  # fmt: skip
    ends = {name for name, operator in report.picture.nodes if operator in {"input", "output"}}
    named = dict.fromkeys(name for graph in graphs for name, _ in graph)
    layers = {each.name for view in report.views for each in view.layers}
    return [name for name in named if name in layers or name not in ends]


def _operators(report: Report) -> dict[str, str]:
    found = {each.name: each.explanation.operator for view in report.views for each in view.layers}
    return {**found, **dict(report.picture.nodes)} if not found else {
        **dict(report.picture.nodes), **found
    }  # fmt: skip


def _model(report: Report, index: int) -> dict[str, Any]:
    """One of the models: its name, as short as tells it from the others, and its numbers."""
    model = report.every[index]
    validation = report.validation
    times = validation.executions if validation else 1
    row = None
    if validation is not None:
        row = validation.rows[0 if index == 0 else (index - 1) * times + 1]
    timed = report.timing.rows[index] if report.timing else None
    return {
        "name": report.names[index],
        "file": str(model.source or model.name),
        "size": model.size,
        "quantized": index > 0,
        "metrics": row
        and {name: {"value": value, "unit": row.units[name]} for name, value in row.values.items()},
        "milliseconds": timed and timed.wall.median,
        "ratio": timed and timed.ratio.median,
    }


def _measured(report: Report) -> dict[str, Any] | None:
    """What all models were compared by; None without data."""
    found = report.validation
    if found is None:
        return None
    times = found.executions
    paths = [report.model.source or report.model.name]
    paths += [each.source or each.name for each in report.quantized for _ in range(times)]
    rows = [found.rows[number * times + 1] for number in range(len(report.quantized))]
    parts: dict[str, list[Any]] = {}
    for number, row in enumerate(rows):
        for output in row.outputs:
            for part in (output.whole, *output.groups):
                line = parts.setdefault(part.label, [None] * len(rows))
                line[number] = {
                    "sqnr": part.sqnr, "error": part.sqnr_error, "cosine": part.cosine,
                    "largest": output.largest_error if part is output.whole else math.nan,
                    "equal": output.equal if part is output.whole else math.nan,
                }  # fmt: skip
    metrics = validation_report.metric_table(found, paths)  # type: ignore[arg-type]
    return {
        "samples": found.samples,
        "executions": times,
        "metrics": plain_table(metrics),
        "gates": plain_table(validation_report.gate_table(found)),
        "outputs": [{"part": label, "models": line} for label, line in parts.items()],
        "kernels": [
            {"told": f"{each.model}: {kernel_summary(each.kernels, each.execution)}",
             "table": plain_table(kernel_table(each.kernels, whole=False))}
            for each in found.kernels
        ],
    }  # fmt: skip


def _samples(report: Report) -> dict[str, Any] | None:
    """The worst samples, and the classes, by model; None where nothing was compared."""
    if not report.by_sample:
        return None
    exact, *rows = report.by_sample
    names = report.classes

    def called(label: int) -> str:
        return names.get(label, f"class {label}")

    def answer(numbers: Sequence[int], sample: int) -> str:
        return called(numbers[sample]) if sample < len(numbers) else ""

    classes = exact.by_class
    by_model = [each.by_class for each in (exact, *rows)]
    return {
        "counted": len(rows[0].errors) if rows else 0,
        "worst": [
            {
                "name": each.name, "picture": each.picture, "text": each.text,
                "label": answer(exact.labels, each.number),
                "float": answer(exact.answers, each.number),
                "models": [{"error": float(row.errors[each.number]),
                            "answer": answer(row.answers, each.number)} for row in rows],
            }
            for each in report.worst
        ],
        "classes": [
            {"name": called(label), "samples": samples,
             "right": [100 * found[label][1] / samples for found in by_model]}
            for label, (samples, _) in classes.items()
        ],
        "flipped": [
            sum(one != other for one, other in zip(exact.answers, row.answers, strict=False))
            for row in rows
        ],
    }  # fmt: skip


def _by_number(found: Mapping[str, Any], numbers: Mapping[str, int]) -> dict[int, Any]:
    return {numbers[name]: value for name, value in found.items() if name in numbers}


def _graph(report: Report, numbers: Mapping[str, int]) -> dict[str, Any]:
    """Nodes by their number among all nodes, or by name and kind at the ends of the graph."""
    nodes = [
        numbers[name] if operator not in {"input", "output"} else {"name": name, "kind": operator}
        for name, operator in report.picture.nodes
    ]
    edges = [[each.source, each.target, each.shape] for each in report.picture.edges]
    return {"nodes": nodes, "edges": edges}
