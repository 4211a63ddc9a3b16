"""Ranges as AIMET writes encodings, which the converters of Qualcomm's SDK take as overrides."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxq.calibration.statistics import Calibration
from onnxq.formats.parameters import Parameters
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.quantization.plan import QuantizationOptions
from onnxq.quantization.planning import plan_quantization
from onnxq.targets import target_named

VERSION = "0.6.1"

TARGET = "qnn"
"""The target whose readers know these files."""


def encodings(model: Model, calibration: Calibration) -> dict[str, Any]:
    """What `quantize` for the target would give each tensor and weight, equalization aside.

    Args:
        model: normalized.
    """
    graph, target = Graph(model), target_named(TARGET)
    plan = plan_quantization(graph, calibration, target, QuantizationOptions())
    return {
        "version": VERSION,
        "activation_encodings": {
            name: _each(entry.parameters) for name, entry in sorted(plan.static.items())
        },
        "param_encodings": {
            graph.by_name[place.node].input(place.position): _each(parameters)
            for place, parameters in sorted(plan.weights.items())
        },
    }


def _each(parameters: Parameters) -> list[dict[str, Any]]:
    """An entry for each scale. Their numbers start at 0, and `offset` is that of the smallest."""
    grid = parameters.numbers
    scales, zeros = np.atleast_1d(parameters.scale), np.atleast_1d(parameters.zero_point)
    # Of symmetric weights the lowest number is left out; the files know whole formats.
    lowest = parameters.format.grid.lowest
    return [
        {
            "bitwidth": parameters.format.bits,
            "dtype": "int",
            "is_symmetric": str(bool(grid.lowest == -grid.highest)),
            "min": float((lowest - zero) * scale),
            "max": float((grid.highest - zero) * scale),
            "offset": int(lowest - zero),
            "scale": float(scale),
        }
        for scale, zero in zip(scales.ravel(), zeros.ravel(), strict=True)
    ]
