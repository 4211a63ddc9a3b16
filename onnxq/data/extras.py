"""Packages that only some kinds of data need."""

from __future__ import annotations

import importlib
from typing import Any

from onnxq.errors import UsageError


def require(module: str, extra: str) -> Any:
    """The module; `UsageError` that says how to install it where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise UsageError(
            f"these data need the package {package}", hint=f"pip install 'onnxq[{extra}]'"
        ) from None
