"""Executions: how a model is run for comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray
from onnx import TensorProto

from onnxq.emulation.emulate import machine_of
from onnxq.errors import ModelError, UsageError
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.operators import is_dequantize
from onnxq.model.session import Runtime, open_session, run
from onnxq.validation import runtimes
from onnxq.validation.runtimes import RUNTIMES

Array = NDArray[Any]
Runner = Callable[[Mapping[str, Array]], list[Array]]


def _emulate(model: Model, *, large: bool, saturate: bool = False) -> Runner:
    """The integer machine of a QDQ model."""
    machine = machine_of(model, saturate=saturate).open(Runtime(lean=large, arena=not large))

    def run_machine(feeds: Mapping[str, Array]) -> list[Array]:
        outputs, overflows = machine.run(feeds)
        for node, count in overflows.items():
            raise ModelError(
                f"{model.name}: {count} sums of {node!r} leave int32 and wrap around",
                hint="give its weight or input a coarser scale, or leave it in float",
            )
        return outputs

    return run_machine


def _cpu(model: Model, *, large: bool) -> Runner:
    """ONNX Runtime's CPU provider with its integer kernels.

    It has none for float16 scales. There it would quantize biases by products of scales that it
    computes in float16, where they underflow: tens of dB of error (its WeightBiasQuantization).
    """
    keep_qdq = _has_float16_scales(model)
    session = open_session(model, keep_qdq=keep_qdq, lean=large, arena=not large)
    return lambda feeds: run(session, None, feeds)


def _has_float16_scales(model: Model) -> bool:
    graph = Graph(model)
    return any(
        is_dequantize(node) and graph.elem_type(node.input(1)) == TensorProto.FLOAT16
        for node in graph.nodes
    )


def _cuda(model: Model, *, large: bool) -> Runner:
    session = open_session(model, provider="cuda", lean=large)
    return lambda feeds: run(session, None, feeds)


def _in_runtime(name: str, model: Model, *, large: bool) -> Runner:
    """A runtime of its own, which manages its memory itself."""
    del large
    return runtimes.runner(model, name)


EXECUTIONS: Mapping[str, Callable[..., Runner]] = MappingProxyType(
    {
        "emulate": _emulate,
        "saturate": partial(_emulate, saturate=True),
        "cpu": _cpu,
        "cuda": _cuda,
        **{name: partial(_in_runtime, name) for name in RUNTIMES},
    }
)


def runner(model: Model, execution: str, *, large: bool = False) -> Runner:
    """A function from inputs to outputs.

    Args:
        large: whether its tensors are large: it then keeps no memory while others run.

    Raises:
        UsageError: unknown execution.
        ProviderError: no CUDA device, or a runtime that is not installed.
        ModelError: ONNX Runtime refuses the model; running it raises this too where the sums of an
            emulated layer leave int32.
    """
    if execution not in EXECUTIONS:
        raise UsageError(f"unknown execution {execution!r}", hint=f"one of {', '.join(EXECUTIONS)}")
    return EXECUTIONS[execution](model, large=large)
