"""Packages that only some kinds of data and some metrics need."""

from __future__ import annotations

import importlib
from typing import Any

from onnxq.errors import UsageError


def require(module: str, extra: str, *, package: str = "", user: str = "these data need") -> Any:
    """The module; `UsageError` that says how to install it where it is missing.

    Args:
        extra: of onnxq, that brings it.
        package: its name where it is not the module's.
        user: what needs it, with the verb.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        name = package or module.partition(".")[0]
        raise UsageError(
            f"{user} the package {name}",
            hint=f"pip install {name}; in a checkout of onnxq pip install '.[{extra}]'",
        ) from None
