"""What the numbers stand for that a model takes and gives in place of floats."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.formats.parameters import Parameters, dequantize, quantize
from onnxq.formats.table import FORMATS
from onnxq.model.model import Model

METADATA_KEY = "onnxq.interface"

Array = NDArray[Any]


def interface_json(tensors: Mapping[str, Parameters]) -> str:
    """What the metadata hold."""
    return json.dumps({
        name: {"format": each.format.name, "scale": float(each.scale),
               "zero_point": int(each.zero_point)}
        for name, each in tensors.items()
    })  # fmt: skip


def recorded_interface(model: Model) -> Mapping[str, Parameters]:
    """Input or output → what its numbers stand for, as the metadata say; none without them."""
    said = json.loads(model.metadata.get(METADATA_KEY, "{}"))
    return {
        name: Parameters(
            FORMATS[each["format"]],
            np.array(each["scale"], np.float32),
            np.array(each["zero_point"], np.int32),
        )
        for name, each in said.items()
    }


def quantized_feeds(
    feeds: Mapping[str, Array], interface: Mapping[str, Parameters]
) -> dict[str, Array]:
    """Float inputs in the numbers that the model takes."""
    return {
        name: quantize(values, interface[name])
        if name in interface and values.dtype.kind == "f"
        else values
        for name, values in feeds.items()
    }


def dequantized(name: str, values: Array, interface: Mapping[str, Parameters]) -> Array:
    """What an output's numbers stand for; other outputs as they are."""
    return dequantize(values, interface[name]) if name in interface else values
