"""ONNX Runtime, whichever build is there: onnxq brings none, as they overwrite each other."""

from __future__ import annotations

import importlib
from typing import Any

from onnxq.errors import ProviderError

INSTALL = "pip install onnxruntime, or onnxruntime-gpu for NVIDIA's GPUs"
MEND = "pip uninstall --yes onnxruntime onnxruntime-gpu, then " + INSTALL


def onnx_runtime() -> Any:
    """The module `onnxruntime`.

    Raises:
        ProviderError: there is none, or only a part of one; it says what to type.
    """
    try:
        found = importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        if error.name == "onnxruntime":
            raise ProviderError("ONNX Runtime is not installed", hint=INSTALL) from None
        raise ProviderError(f"ONNX Runtime cannot be imported: {error}", hint=MEND) from None
    except Exception as error:  # noqa: BLE001 - of a half-removed package anything may come
        raise ProviderError(f"ONNX Runtime cannot be imported: {error}", hint=MEND) from None
    if not hasattr(found, "InferenceSession"):
        # What pip leaves where two builds shared the folder and one was removed.
        raise ProviderError("ONNX Runtime is there in part", hint=MEND)
    return found
