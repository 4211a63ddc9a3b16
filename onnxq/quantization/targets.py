"""Targets as data: what a machine computes in integers and where it wants Q/DQ."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from onnxq.errors import UsageError


class Placement(enum.Enum):
    """Where QuantizeLinear/DequantizeLinear pairs go."""

    INPUTS = "inputs"
    """On the inputs of weighted operators, residual branches and int8 pass-throughs before them;
    a float reader of the same tensor keeps reading the float value."""
    ALL = "all"
    """On the inputs and outputs of everything that has an integer kernel, so that each group
    between two pairs becomes one kernel; every reader reads the dequantized value."""


@dataclass(frozen=True)
class Target:
    """One machine.

    Attributes:
        name: as given to `--target`.
        runs_on: for people.
        activation: element type of activations.
        symmetric: whether activation zero points are all zero.
        integer_bias: int32 bias with scale input × weight; else float.
        placement: see `Placement`.
        own: operators with an integer kernel besides the weighted ones, used where some input is
            int8 already.
        residual: operators whose second branch gets Q/DQ under `Placement.INPUTS`.
        float_output: weighted operators whose integer kernel can write float: for a graph output,
            or where no other integer kernel reads it.
    """

    name: str
    runs_on: str
    activation: str
    symmetric: bool
    integer_bias: bool
    placement: Placement
    own: frozenset[str]
    residual: frozenset[str]
    float_output: frozenset[str]
    weighted: frozenset[str]

    @property
    def levels(self) -> int:
        """Quantization levels of an activation."""
        return 255 if self.symmetric else 256


TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        "gpu": Target(
            "gpu",
            "TensorRT explicit quantization; ONNX Runtime TensorRT and CUDA providers",
            activation="int8", symmetric=True, integer_bias=False, placement=Placement.INPUTS,
            own=frozenset(), residual=frozenset({"Add"}),
            float_output=frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"}),
            weighted=frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"}),
        ),
        "cpu": Target(
            "cpu",
            "ONNX Runtime CPU provider (MLAS integer kernels)",
            activation="uint8", symmetric=False, integer_bias=True, placement=Placement.ALL,
            own=frozenset({
                "Add", "Mul", "AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid",
            }),
            residual=frozenset(),
            float_output=frozenset({"Gemm", "MatMul"}),
            weighted=frozenset({"Conv", "Gemm", "MatMul"}),
        ),
    }
)  # fmt: skip


def target_named(name: str) -> Target:
    """Look a target up; raises `UsageError` for an unknown one."""
    if name not in TARGETS:
        raise UsageError(f"unknown target {name!r}", hint=f"one of {', '.join(TARGETS)}")
    return TARGETS[name]
