"""One model in the page's document: its nodes, tensors and tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from onnxq.report.html.activations import TensorFacts
from onnxq.report.html.facts import LayerFacts, View
from onnxq.report.html.plain import plain_table
from onnxq.report.html.weights import WeightFacts
from onnxq.report.scale_facts import Fact
from onnxq.validation.layers import LayerError


class Texts(list[str]):
    """Texts that come many times, in the order in which they come; facts name them by number."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        if text not in self._numbers:
            self._numbers[text] = len(self)
            self.append(text)
        return self._numbers[text]


def view_document(view: View, numbers: Mapping[str, int], texts: Texts) -> dict[str, Any]:
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
        "tables": {title: plain_table(each) for title, each in view.tables.items()},
        "errors": report and {
            "probes": report.probes, "first_look": report.first_look,
            "together": report.together, "sum_of_parts": report.sum_of_parts,
            "unmatched": [{"name": each.name, "operator": each.op_type, "reason": each.reason}
                          for each in report.unmatched],
        },
        "curve": view.curve,
    }  # fmt: skip


def _node(layer: LayerFacts, texts: Texts) -> dict[str, Any]:
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


def _facts(facts: Iterable[Fact], texts: Texts) -> list[tuple[int, int]]:
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
