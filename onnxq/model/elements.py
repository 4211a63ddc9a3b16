"""How ONNX stores the values of each element type; several of the narrow ones share a byte."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

KNOWN = frozenset(TensorProto.DataType.values())
"""Element types of the installed onnx; 0 stands for one that is not said."""

STORED = KNOWN - {TensorProto.UNDEFINED, TensorProto.STRING}
"""Those whose values raw bytes can hold."""

NUMPY = frozenset(
    each
    for each in KNOWN - {TensorProto.UNDEFINED}
    if onnx.helper.tensor_dtype_to_np_dtype(each).isbuiltin == 1
)
"""Those that numpy itself has; only these does ONNX Runtime take and give as arrays. For others
onnx brings types of its own."""

_COMPLEX = frozenset({TensorProto.COMPLEX64, TensorProto.COMPLEX128})

_NARROW = {
    getattr(TensorProto, name): bits
    for name, bits in {
        "UINT2": 2, "INT2": 2,
        "UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4,
        "FLOAT6E2M3": 6, "FLOAT6E3M2": 6,
    }.items()
    if hasattr(TensorProto, name)  # an older onnx knows fewer
}  # fmt: skip
"""Bits of the types narrower than a byte (onnx.proto, `raw_data`); in numpy each has its own."""


def is_narrow(data_type: int) -> bool:
    """Whether raw bytes hold the values more densely than a numpy array."""
    return data_type in _NARROW


def bits(data_type: int) -> int:
    """Bits of one value in raw bytes; `data_type` is one of `STORED`."""
    if is_narrow(data_type):
        return _NARROW[data_type]
    return 8 * int(onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize)


def raw_size(data_type: int, count: int) -> int:
    """Bytes that `count` values take as raw data."""
    return -(-count * bits(data_type) // 8)


def field_size(data_type: int, count: int) -> int:
    """Numbers that `count` values take in a field such as `int32_data` or `float_data`.

    Complex values take two; a number holds the byte that values of 2 or 4 bits share.
    """
    if data_type in _COMPLEX:
        return 2 * count
    if is_narrow(data_type):
        return -(-count // (8 // bits(data_type)))
    return count


def raw(values: NDArray[Any]) -> NDArray[np.uint8]:
    """The values as raw bytes; a view where the array already is what a file holds."""
    if is_narrow(onnx.helper.np_dtype_to_tensor_dtype(values.dtype)):
        return np.frombuffer(numpy_helper.from_array(values).raw_data, np.uint8)
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
