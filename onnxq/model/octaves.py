"""Which channels of a model's tensors carry a scale, as the model itself records it.

Equalization multiplies channel c of an activation by s_c without changing the outputs. Whoever
compares such a tensor with the original's must divide by s_c first, so the scales travel in the
metadata, as log₂ s, of the equalized model and of every model made from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.model.model import Model, with_metadata

METADATA_KEY = "onnxq.octaves"

Octaves = Mapping[str, NDArray[np.float64]]
"""Tensor → log₂ s, broadcastable to the tensor; a tensor without scales is absent."""


def recorded_octaves(model: Model) -> dict[str, NDArray[np.float64]]:
    """The scales the model records, relative to the model it was made from; {} for none."""
    try:
        entries = json.loads(model.metadata.get(METADATA_KEY, "[]"))
        return {tensor: _unpack(entry) for entry in entries for tensor in entry["tensors"]}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return {}


def with_octaves(model: Model, octaves: Octaves) -> Model:
    """The model with `octaves` added to the scales it records already."""
    total = recorded_octaves(model)
    for tensor, values in octaves.items():
        total[tensor] = total.get(tensor, np.zeros(())) + values
    groups: dict[str, list[str]] = {}
    for tensor in sorted(total):
        if np.any(total[tensor]):
            groups.setdefault(json.dumps(_pack(total[tensor])), []).append(tensor)
    entries = [{"tensors": names} | json.loads(packed) for packed, names in groups.items()]
    text = json.dumps(entries, separators=(",", ":"))
    if not entries and METADATA_KEY not in model.metadata:
        return model
    return with_metadata(model, {METADATA_KEY: text})


def _pack(values: NDArray[np.float64]) -> dict[str, Any]:
    """Few channels carry a scale, so only those are written: flat index → log₂ s."""
    flat = values.ravel()
    scaled = {
        str(index): int(flat[index]) if flat[index].is_integer() else float(flat[index])
        for index in np.flatnonzero(flat)
    }
    return {"shape": list(values.shape), "scaled": scaled}


def _unpack(entry: dict[str, Any]) -> NDArray[np.float64]:
    values = np.zeros(entry["shape"], np.float64)
    for index, octave in entry["scaled"].items():
        values.flat[int(index)] = octave
    return values
