"""onnxq turns float ONNX models into quantized ones that keep their accuracy.

import onnxq

model = onnxq.load("model.onnx")
quantized, record = onnxq.quantize(model, "images/", preprocess="imagenet")
onnxq.save(quantized, "model.int8.onnx")
print(onnxq.validate(model, quantized, "test/", preprocess="imagenet").rows)
"""

from typing import TYPE_CHECKING, Any

from onnxq.shown import Looks, show_with

__version__ = "0.1.0"

if TYPE_CHECKING:
    from onnxq.api import (
        bench,
        calibrate,
        emulate,
        equalize,
        explain,
        inspect,
        load,
        merge,
        quantize,
        report,
        save,
        tune,
        validate,
    )
    from onnxq.model.model import Model

__all__ = [
    "Model",
    "bench",
    "calibrate",
    "emulate",
    "equalize",
    "explain",
    "inspect",
    "load",
    "merge",
    "quantize",
    "report",
    "save",
    "tune",
    "validate",
]


def __getattr__(name: str) -> Any:
    """Import the API on first use: numpy, onnx and onnxruntime take most of a second."""
    if name in __all__:
        from onnxq import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _looks() -> Looks:
    from onnxq.report import notebook

    return notebook


show_with(_looks)
