"""Which channels of a model's tensors carry a scale and an offset, as the model itself records it.

Equalization turns channel c of an activation x into s_c · x − o_c without changing the outputs.
Whoever compares such a tensor with the original's must undo that first, so log₂ s and o travel in
the metadata of the equalized model and of every model made from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.errors import ModelError
from onnxq.model.model import Model, with_metadata

METADATA_KEY = "onnxq.octaves"  # the key of 0.1
OFFSETS_KEY = "onnxq.offsets"

Exponents = Mapping[str, NDArray[np.float64]]
"""Tensor → log₂ s, broadcastable to the tensor; a tensor without scales is absent."""


def recorded_exponents(model: Model) -> dict[str, NDArray[np.float64]]:
    """The scales the model records, relative to the model it was made from; {} for none."""
    return _recorded(model, METADATA_KEY)


def recorded_offsets(model: Model) -> dict[str, NDArray[np.float64]]:
    """Tensor → what is subtracted from it once it is scaled, broadcastable to it; {} for none."""
    return _recorded(model, OFFSETS_KEY)


def _recorded(model: Model, key: str) -> dict[str, NDArray[np.float64]]:
    try:
        entries = json.loads(model.metadata.get(key, "[]"))
        return {tensor: _unpack(entry) for entry in entries for tensor in entry["tensors"]}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return {}


def with_exponents(model: Model, exponents: Exponents) -> Model:
    """The model with `exponents` added to the scales it records already."""
    zero = np.zeros(())
    scaled = {
        tensor: offset * np.exp2(exponents.get(tensor, zero))
        for tensor, offset in recorded_offsets(model).items()
    }
    model = _record(model, OFFSETS_KEY, scaled) if scaled else model
    total = recorded_exponents(model)
    for tensor, values in exponents.items():
        total[tensor] = total.get(tensor, zero) + values
    return _record(model, METADATA_KEY, total)


def with_offsets(model: Model, offsets: Mapping[str, NDArray[np.float64]]) -> Model:
    """The model with `offsets`, broadcastable to their tensors, added to those it records."""
    total = recorded_offsets(model)
    for tensor, values in offsets.items():
        total[tensor] = total.get(tensor, np.zeros(())) + values
    return _record(model, OFFSETS_KEY, total)


def relation(
    ours: Model, theirs: Model
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
    """How tensors y of `theirs` follow from x of `ours`, of one origin: y = 2^exponents·x − offset.

    Returns:
        The exponents and the offsets of the tensors where they are not all 0.

    Raises:
        ModelError: the two records contradict each other.
    """
    try:
        return _relation(ours, theirs)
    except ValueError as error:  # shapes that do not go together
        raise ModelError(
            f"{theirs.name} and {ours.name} record scales that contradict each other"
        ) from error


def _relation(
    ours: Model, theirs: Model
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
    zero = np.zeros(())
    before, after = recorded_exponents(ours), recorded_exponents(theirs)
    exponents = {
        name: after.get(name, zero) - before.get(name, zero) for name in sorted({*before, *after})
    }
    exponents = {name: values for name, values in exponents.items() if np.any(values)}
    offsets = recorded_offsets(theirs)
    for name, given in recorded_offsets(ours).items():
        offsets[name] = offsets.get(name, zero) - np.exp2(exponents.get(name, zero)) * given
    return exponents, {name: values for name, values in offsets.items() if np.any(values)}


def _record(model: Model, key: str, values: Mapping[str, NDArray[np.float64]]) -> Model:
    groups: dict[str, list[str]] = {}
    for tensor in sorted(values):
        if np.any(values[tensor]):
            groups.setdefault(json.dumps(_pack(values[tensor])), []).append(tensor)
    entries = [{"tensors": names} | json.loads(packed) for packed, names in groups.items()]
    text = json.dumps(entries, separators=(",", ":"))
    if not entries and key not in model.metadata:
        return model
    return with_metadata(model, {key: text})


def _pack(values: NDArray[np.float64]) -> dict[str, Any]:
    """Few channels carry a scale, so only those are written: flat index → value."""
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
