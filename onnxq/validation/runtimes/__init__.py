"""Runtimes of targets, each with an extra of its own: they run a model and tell their kernels.

A row of `RUNTIMES` is a module with two functions: `runner` opens a model, `ran` tells what the
runtime makes of each node.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from onnxq.model.model import Model
from onnxq.validation.runtimes.ran import Ran

Runner = Callable[[Mapping[str, NDArray[Any]]], list[NDArray[Any]]]

RUNTIMES: Mapping[str, str] = MappingProxyType({"openvino": "OpenVINO", "qnn": "QNN"})
"""Execution → what the runtime is called; the module has the name of the execution."""


def runner(model: Model, name: str) -> Runner:
    """A function from inputs to outputs.

    Raises:
        UsageError, ProviderError: its package is not installed; the hint has the line to type.
        ModelError: the runtime refuses the model.
    """
    found: Runner = _module(name).runner(model)
    return found


def ran_in(model: Model, name: str) -> Mapping[str, Ran]:
    """Node → what the runtime makes of it; nodes that it knows nothing of are absent.

    Args:
        model: with names for all nodes.

    Raises: as `runner`.
    """
    found: Mapping[str, Ran] = _module(name).ran(model)
    return found


def _module(name: str) -> Any:
    return importlib.import_module(f"onnxq.validation.runtimes.{name}")
