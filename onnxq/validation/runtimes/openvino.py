"""OpenVINO on the CPU."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.data.extras import require
from onnxq.errors import ModelError
from onnxq.model import split_files
from onnxq.model.model import Model
from onnxq.validation.runtimes.ran import Ran

Array = NDArray[Any]

DEVICE = "CPU"

CONFIGURATION = {"INFERENCE_PRECISION_HINT": "f32"}
"""What is float is computed in float32: newer processors would take bfloat16."""

INTEGERS = frozenset({"i8", "u8", "i16", "u16", "i4", "u4"})
"""Precisions of kernels, by OpenVINO's names."""

PARTS = re.compile(r"(/WithoutBiases|/Dequantization(Multiply|Subtract))+$")
"""What OpenVINO adds to the name of a layer that it takes apart."""


def runner(model: Model) -> Any:
    """See `onnxq.validation.runtimes.runner`."""
    compiled = _compiled(model)
    names = [spec.name for spec in model.outputs]

    def run_compiled(feeds: Mapping[str, Array]) -> list[Array]:
        try:
            results = compiled({name: np.asarray(values) for name, values in feeds.items()})
        except Exception as error:  # noqa: BLE001 - its exceptions are RuntimeErrors of any kind
            raise ModelError(f"the model failed to run in OpenVINO: {_line(error)}") from None
        return [np.array(results[name]) for name in names]

    return run_compiled


def ran(model: Model) -> dict[str, Ran]:
    """See `onnxq.validation.runtimes.ran_in`: from the graph that OpenVINO compiled."""
    found: dict[str, Ran] = {}
    for node in _compiled(model).get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        layer, precision, names = (
            str(info[key].value) for key in ("layerType", "runtimePrecision", "originalLayersNames")
        )
        kernel = Ran(f"{layer} {precision}", precision in INTEGERS)
        for name in names.split(","):
            found.setdefault(PARTS.sub("", name), kernel)
    return found


def _compiled(model: Model) -> Any:
    """Raises `ModelError` where OpenVINO refuses the model."""
    openvino = require("openvino", "openvino", user="--execution openvino needs")
    core = openvino.Core()
    try:
        with split_files.as_file(model.message) as path:
            read = core.read_model(str(path))
            return core.compile_model(read, DEVICE, CONFIGURATION)
    except Exception as error:  # noqa: BLE001
        raise ModelError(f"OpenVINO refuses the model: {_line(error)}") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
