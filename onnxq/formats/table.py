"""THE table of number formats: one row for each that a QuantizeLinear or DequantizeLinear knows.

Everything else asks a row: how wide it is, which integers it holds, how ONNX calls it, from which
operator set on it can be written. Nothing outside this package names a format, its limits or its
numpy type. Sources: QuantizeLinear and DequantizeLinear of ONNX's operator sets 10 to 28; float8:
Micikevicius et al., 2022 (arXiv:2209.05433); float4 and float6: OCP Microscaling Formats 1.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, get_args

from onnxq.errors import UsageError
from onnxq.records import Named
from onnxq.suggest import suggest

if TYPE_CHECKING:
    from typing import Any

    import numpy as np


BYTE = 8
"""Bits."""


@dataclass(frozen=True)
class Uniform:
    """The whole numbers from `lowest` to `highest`, both included."""

    lowest: int
    highest: int

    @property
    def bits(self) -> int:
        """Bits that tell the numbers apart."""
        return (self.highest - self.lowest).bit_length()


@dataclass(frozen=True)
class Floating:
    """Floating-point numbers of one sign, `exponent` and `mantissa` bits, up to ±`highest`."""

    exponent: int
    mantissa: int
    highest: float

    @property
    def lowest(self) -> float:
        return -self.highest

    @property
    def bits(self) -> int:
        return 1 + self.exponent + self.mantissa


@dataclass(frozen=True)
class Format(Named):
    """One row.

    Attributes:
        name: as users and ONNX call it.
        element: ONNX's number of the element type (`TensorProto.DataType`).
        grid: the numbers it holds.
        zero_point: whether a zero point other than 0 makes sense.
        opset: the first operator set whose QuantizeLinear and DequantizeLinear take it.
        blocks: whether weights are stored in it by block.
        storage: numpy's name of its type, with `ml_dtypes` for those numpy lacks.
    """

    name: str
    element: int
    grid: Uniform | Floating
    zero_point: bool
    opset: int
    blocks: bool
    storage: str

    @property
    def bits(self) -> int:
        return self.grid.bits

    @property
    def narrow(self) -> bool:
        """Whether its numbers are narrower than a byte, the least that all kernels read."""
        return self.bits < BYTE

    @property
    def signed(self) -> bool:
        return self.grid.lowest < 0

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Of numpy arrays that hold such numbers, one each."""
        import ml_dtypes  # noqa: F401 - tells numpy the types that it lacks
        import numpy as np

        return np.dtype(self.storage)

    def __str__(self) -> str:
        return self.name


_ROWS = (
    Format("int8", 3, Uniform(-128, 127), True, 10, True, "int8"),
    Format("uint8", 2, Uniform(0, 255), True, 10, True, "uint8"),
    Format("int16", 5, Uniform(-(1 << 15), (1 << 15) - 1), True, 21, False, "int16"),
    Format("uint16", 4, Uniform(0, (1 << 16) - 1), True, 21, False, "uint16"),
    Format("int4", 22, Uniform(-8, 7), True, 21, True, "int4"),
    Format("uint4", 21, Uniform(0, 15), True, 21, True, "uint4"),
    Format("int2", 26, Uniform(-2, 1), True, 25, True, "int2"),
    Format("uint2", 25, Uniform(0, 3), True, 25, True, "uint2"),
    # Sums of products and biases; a DequantizeLinear alone takes it.
    Format("int32", 6, Uniform(-(1 << 31), (1 << 31) - 1), False, 10, False, "int32"),
    Format("float8e4m3fn", 17, Floating(4, 3, 448.0), False, 19, True, "float8_e4m3fn"),
    Format("float8e4m3fnuz", 18, Floating(4, 3, 240.0), False, 19, True, "float8_e4m3fnuz"),
    Format("float8e5m2", 19, Floating(5, 2, 57344.0), False, 19, True, "float8_e5m2"),
    Format("float8e5m2fnuz", 20, Floating(5, 2, 57344.0), False, 19, True, "float8_e5m2fnuz"),
    Format("float6e2m3", 27, Floating(2, 3, 7.5), False, 28, True, "float6_e2m3fn"),
    Format("float6e3m2", 28, Floating(3, 2, 28.0), False, 28, True, "float6_e3m2fn"),
    Format("float4e2m1", 23, Floating(2, 1, 6.0), False, 23, True, "float4_e2m1fn"),
)

FORMATS: Mapping[str, Format] = MappingProxyType({row.name: row for row in _ROWS})

BLOCKS_OPSET = 21
"""The first operator set whose QuantizeLinear and DequantizeLinear know blocks."""

SUMS = FORMATS["int32"]
"""What sums of products of 8-bit integers are computed in, and biases are stored in."""

UNSTATED = FORMATS["uint8"]
"""What ONNX takes where neither a zero point nor `output_dtype` states a format."""

_BY_ELEMENT: Mapping[int, Format] = MappingProxyType({row.element: row for row in _ROWS})


def format_named(name: str) -> Format:
    """The row of that name; raises `UsageError` with the nearest."""
    if name not in FORMATS:
        raise UsageError(
            f"unknown number format {name!r}", hint=suggest(name, FORMATS, of="formats")
        )
    return FORMATS[name]


def format_of(element: int) -> Format | None:
    """The row of an ONNX element type; None for one that stands for no real numbers here."""
    return _BY_ELEMENT.get(element)


InterfaceName = Literal["int8", "uint8"]
"""Formats that inputs and outputs of a model may have."""

INTERFACES: tuple[str, ...] = get_args(InterfaceName)
