"""Functions and classes in files of the user's, which are run only because the user named them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onnxq.refusal import Refusal

RAISED = (Exception, SystemExit)
"""What code of the user's may raise: an `exit` in it ends that code, not onnxq."""


def brief(error: BaseException) -> str:
    """What the user's code raised, in a line."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def load_callable(path: Path, name: str) -> Callable[..., Any] | Refusal:
    """What a Python file calls `name`; or why it cannot be had.

    Args:
        path: a `.py` file; it is run.
        name: of a function or class in it.
    """
    if not path.is_file():
        return Refusal(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"onnxq_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        return Refusal(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Where a dataclass looks for the types that its fields name.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except RAISED as error:
        sys.modules.pop(spec.name, None)
        return Refusal(f"{path} failed: {brief(error)}")
    found = getattr(module, name, None)
    return found if callable(found) else Refusal(f"{path} has no function {name!r}")
