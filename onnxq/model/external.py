"""Weights in files, for models that are copied too dearly, or that no message can hold (2 GiB).

Inside this program a large model's weights are *parked*: the proto tells the file, offset and
length of each, so that copies of the model share them and they take memory only while they are
looked at.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

from onnxq.model import elements
from onnxq.records import filling_temporary_folder

INLINE_LIMIT = 1_900_000_000
"""Bytes of weights above which they go to a file beside the model that is written."""

PARK_LIMIT = 1 << 25
"""Bytes of weights above which they are parked. A ResNet-50 is quantized in 1.0 GB in place of 1.7,
in the same time."""

SMALL = 1024
"""Bytes up to which a tensor stays in the model file, such as shapes and scalars."""


def byte_size(tensor: TensorProto) -> int | None:
    """Bytes of the tensor's raw data; None for types and shapes that have none."""
    if tensor.data_type not in elements.STORED or any(size < 0 for size in tensor.dims):
        return None
    return elements.raw_size(tensor.data_type, math.prod(tensor.dims))


def is_large(proto: ModelProto) -> bool:
    """Whether the weights are parked."""
    return _weights_size(proto) >= min(PARK_LIMIT, INLINE_LIMIT)


def is_split(proto: ModelProto) -> bool:
    """Whether a file of the model needs another one for its weights."""
    return _weights_size(proto) >= INLINE_LIMIT


def _weights_size(proto: ModelProto) -> int:
    return sum(byte_size(tensor) or 0 for tensor in proto.graph.initializer)


def settled(proto: ModelProto) -> ModelProto:
    """The message itself where `settle` has nothing to do, else a copy of it."""
    if not is_large(proto):
        return inlined(proto)
    if not any(map(_is_to_park, proto.graph.initializer)):
        return proto
    return _changed(proto, settle)


def _is_to_park(tensor: TensorProto) -> bool:
    return not is_parked(tensor) and (byte_size(tensor) or 0) > SMALL


def settle(proto: ModelProto) -> None:
    """Park the weights of a large model, in place; bring those of another one back into it."""
    if is_large(proto):
        for tensor in proto.graph.initializer:
            if _is_to_park(tensor):
                park(tensor, raw_of(tensor))
    else:
        _bring_back(proto)


def inlined(proto: ModelProto) -> ModelProto:
    """The message itself where no weights are parked, else a copy that holds them."""
    return _changed(proto, _bring_back) if has_parked(proto) else proto


def _changed(proto: ModelProto, change: Callable[[ModelProto], None]) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(proto)
    change(copy)
    return copy


def _bring_back(proto: ModelProto) -> None:
    for tensor in filter(is_parked, proto.graph.initializer):
        tensor.raw_data = bytes(raw_of(tensor))
        _clear_place(tensor)


def is_parked(tensor: TensorProto) -> bool:
    """Whether the values are in a file."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def has_parked(proto: ModelProto) -> bool:
    """Whether a file holds some of the weights: then the message alone is not the model."""
    return any(map(is_parked, proto.graph.initializer))


def needs_file(proto: ModelProto) -> bool:
    """Whether the message alone is not to be run: some weights are parked, or would be."""
    return has_parked(proto) or is_large(proto)


def park(tensor: TensorProto, raw: NDArray[np.uint8]) -> None:
    """Write the values to a file of this process, which goes with it, and point to them.

    Equal values share a file.
    """
    path = spooled(raw)
    for each in ("raw_data", "float_data", "int32_data", "int64_data", "double_data"):
        tensor.ClearField(each)
    point_to(tensor, path, 0, raw.nbytes)


def point_to(tensor: TensorProto, location: Path | str, offset: int, length: int) -> None:
    """Say that the values are in a file: an absolute path, or a name beside the model's file."""
    _clear_place(tensor)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": offset, "length": length}.items():
        tensor.external_data.add(key=key, value=str(value))


def point_to_spool(proto: ModelProto) -> None:
    """Make whole, in place, the names that ONNX Runtime gives of this process's parked weights.

    In a graph that it writes it leaves the folder out. Other weights stay where they are.
    """
    folder = Path(spool().name)
    for tensor in filter(is_parked, proto.graph.initializer):
        path, offset, length = place_of(tensor)
        if not path.is_absolute() and (folder / path).exists():
            point_to(tensor, folder / path, offset, length)


def tensor_of(name: str, values: NDArray[Any], *, parked: bool) -> TensorProto:
    """A tensor of these values, as ONNX stores them; with `parked`, many of them in a file.

    Raises:
        ValueError: ONNX has no such element type.
    """
    data_type = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
    if data_type == TensorProto.STRING:
        return numpy_helper.from_array(values, name)
    tensor = TensorProto(name=name, dims=values.shape, data_type=data_type)
    raw = elements.raw(values)
    if parked and raw.nbytes > SMALL:
        park(tensor, raw)
    else:
        tensor.raw_data = raw.tobytes()
    return tensor


def values_of(tensor: TensorProto) -> NDArray[Any]:
    """The values, of the tensor's shape; those that are parked are mapped, not read."""
    if not is_parked(tensor):
        return numpy_helper.to_array(tensor)
    raw = raw_of(tensor)
    if elements.is_narrow(tensor.data_type):
        inline = TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=bytes(raw))
        return numpy_helper.to_array(inline)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return raw.view(dtype).reshape(tuple(tensor.dims))


def take_raw(tensor: TensorProto) -> NDArray[np.uint8]:
    """The raw bytes, wherever they are, taken out of the tensor; none where it holds numbers."""
    raw = raw_of(tensor) if is_parked(tensor) else np.frombuffer(tensor.raw_data, np.uint8)
    tensor.ClearField("raw_data")
    _clear_place(tensor)
    return raw


def raw_of(tensor: TensorProto) -> NDArray[np.uint8]:
    """The bytes of the values, as a file has them."""
    if is_parked(tensor):
        return mapped(*place_of(tensor))
    if tensor.raw_data:
        return np.frombuffer(tensor.raw_data, np.uint8)
    return elements.raw(numpy_helper.to_array(tensor))


def place_of(tensor: TensorProto) -> tuple[Path, int, int]:
    """File, offset and length of parked values."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    return Path(entries["location"]), int(entries["offset"]), int(entries["length"])


def mapped(path: Path, offset: int, length: int) -> NDArray[np.uint8]:
    """Bytes of a file, which are read where one looks at them."""
    return np.memmap(path, np.uint8, "r", offset, length)


def spooled(raw: NDArray[np.uint8]) -> Path:
    """The file of this process with these bytes, written where there is none yet."""
    path = Path(spool().name) / hashlib.sha256(raw.data).hexdigest()
    if not path.exists():
        with filling_temporary_folder():
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as stream:
                stream.write(raw.data)
            Path(stream.name).replace(path)
    return path


def _clear_place(tensor: TensorProto) -> None:
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")


@lru_cache(maxsize=1)
def spool() -> tempfile.TemporaryDirectory[str]:
    """The folder of this process's parked weights, which goes with it."""
    return tempfile.TemporaryDirectory(prefix="onnxq.weights.")
