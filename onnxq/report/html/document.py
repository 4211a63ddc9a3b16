"""All that the page shows as one JSON document, which its scripts draw and a reader can save."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import onnxq
from onnxq.report import latency as latency_report
from onnxq.report import validation as validation_report
from onnxq.report.details import kernel_summary, kernel_table
from onnxq.report.explain import Fact
from onnxq.report.html.activations import TensorFacts
from onnxq.report.html.collect import Report
from onnxq.report.html.facts import LayerFacts, View
from onnxq.report.html.libraries import LIBRARIES
from onnxq.report.html.weights import WeightFacts
from onnxq.report.table import Table
from onnxq.validation.layers import LayerError

DIGITS = 5
"""Significant digits of a number on the page."""


def document(report: Report) -> dict[str, Any]:
    """The document; numbers that JSON has none for are null, "inf" and "-inf"."""
    names = _union(report)
    numbers = {name: number for number, name in enumerate(names)}
    operators = _operators(report)
    timing = report.timing
    texts = _Texts()
    return {
        "onnxq": onnxq.__version__,
        "title": report.model.name,
        "models": [_model(report, index) for index in range(len(report.quantized) + 1)],
        "calibrated": report.calibrated,
        "nodes": [{"name": name, "operator": operators[name]} for name in names],
        "views": [_view(each, numbers, texts) for each in report.views],
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
            "table": _table(latency_report.latency_table(timing, report.names)),
        },
        "libraries": LIBRARIES,
    }  # fmt: skip


def as_json(report: Report) -> str:
    """The document as text that an HTML script element may hold."""
    text = json.dumps(
        _plain(document(report)), ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
    # What could end the element, or is no JavaScript, is written as JSON's escapes.
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _plain(value: Any) -> Any:
    """Values as JSON has them, with floats to so many digits."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain({each.name: getattr(value, each.name) for each in fields(value)})
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
        short = float(f"{value:.{DIGITS}g}")
        return int(short) if short.is_integer() and abs(short) < 1e15 else short
    return value


def _table(content: Table) -> dict[str, Any] | None:
    if not content.rows:
        return None
    return {
        "columns": [{"header": each.header, "numeric": each.numeric} for each in content.columns],
        "rows": content.rows,
    }


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
        "metrics": _table(metrics),
        "gates": _table(validation_report.gate_table(found)),
        "outputs": [{"part": label, "models": line} for label, line in parts.items()],
        "kernels": [
            {"told": f"{each.model}: {kernel_summary(each.kernels, each.execution)}",
             "table": _table(kernel_table(each.kernels, whole=False))}
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
            sum(one != other for one, other in zip(exact.answers, row.answers, strict=True))
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


# --- one model -------------------------------------------------------------------------------


class _Texts(list[str]):
    """Texts that come many times, in the order in which they come; facts name them by number."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        if text not in self._numbers:
            self._numbers[text] = len(self)
            self.append(text)
        return self._numbers[text]


def _view(view: View, numbers: Mapping[str, int], texts: _Texts) -> dict[str, Any]:
    report = view.report
    return {
        "id": view.id,
        "name": view.name,
        "summary": view.summary,
        "settings": view.settings,
        "recipe": view.recipe,
        "command": view.command,
        "notes": view.notes,
        "equalized": view.equalized,
        "nodes": {numbers[each.name]: _node(each, texts) for each in view.layers},
        "tensors": [_tensor(each, numbers) for each in view.tensors],
        "tables": {title: _table(each) for title, each in view.tables.items()},
        "errors": report and {
            "probes": report.probes, "first_look": report.first_look,
            "together": report.together, "sum_of_parts": report.sum_of_parts,
            "unmatched": [{"name": each.name, "operator": each.op_type, "reason": each.reason}
                          for each in report.unmatched],
        },
        "curve": view.curve,
    }  # fmt: skip


def _node(layer: LayerFacts, texts: _Texts) -> dict[str, Any]:
    told = layer.explanation
    found = {
        "becomes": told.becomes,
        "format": layer.format,
        "reason": told.reason,
        "equalized": told.equalized,
        "error": layer.error and _error(layer.error),
        "weights": layer.weights and _weights(layer.weights),
        "tensors": layer.tensors,
        "quantization": _facts(told.quantization, texts),
        "equalization": _facts(told.equalization, texts),
    }
    return {key: value for key, value in found.items() if value not in (None, "", (), [], False)}


def _facts(facts: Iterable[Fact], texts: _Texts) -> list[tuple[int, int]]:
    return [(texts.number(fact.label), texts.number(fact.text)) for fact in facts]


def _error(error: LayerError) -> dict[str, Any]:
    return {
        "share": error.share, "alone": error.alone, "own": error.own, "standing": error.standing,
        "estimated": error.estimated, "from": error.causes.note, "weights": error.causes.weights,
    }  # fmt: skip


def _weights(weights: WeightFacts) -> dict[str, Any]:
    return {
        "shape": weights.shape,
        "channels": weights.channels,
        "changed": weights.changed,
        "before": weights.spread_before,
        "after": weights.spread_after,
        "boxes_before": weights.boxes_before if weights.changed else None,
        "boxes_after": weights.boxes_after,
    }  # fmt: skip


def _tensor(tensor: TensorFacts, numbers: Mapping[str, int]) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "low": tensor.seen and tensor.seen.low,
        "high": tensor.seen and tensor.seen.high,
        "range": tensor.parameters and tensor.parameters.range,
        "format": tensor.parameters and str(tensor.parameters.format),
        "clipped": tensor.clipped,
        "histogram": tensor.histogram,
        "readers": [numbers[name] for name in tensor.readers],
    }
