"""Weights in files, for models that are copied too dearly, or that no message can hold (2 GiB).

Inside this program a large model's weights are *parked*: the proto tells the file, offset and
length of each, so that copies of the model share them and they take memory only while they are
looked at.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, numpy_helper

from onnxq.model import elements

INLINE_LIMIT = 1_900_000_000
"""Bytes of weights above which they go to a file beside the model that is written."""

PARK_LIMIT = 1 << 28
"""Bytes of weights above which they are parked."""

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


# --- parked weights --------------------------------------------------------------------------


def settled(proto: ModelProto) -> ModelProto:
    """The message itself where `settle` has nothing to do, else a copy of it."""
    moves = _is_to_park if is_large(proto) else is_parked
    if not any(map(moves, proto.graph.initializer)):
        return proto
    copy = ModelProto()
    copy.CopyFrom(proto)
    settle(copy)
    return copy


def _is_to_park(tensor: TensorProto) -> bool:
    return not is_parked(tensor) and (byte_size(tensor) or 0) > SMALL


def settle(proto: ModelProto) -> None:
    """Park the weights of a large model, in place; bring those of another one back into it."""
    if is_large(proto):
        for tensor in proto.graph.initializer:
            if _is_to_park(tensor):
                park(tensor, _raw(tensor))
    else:
        _bring_back(proto)


def inlined(proto: ModelProto) -> ModelProto:
    """The message itself where no weights are parked, else a copy that holds them."""
    if not has_parked(proto):
        return proto
    copy = ModelProto()
    copy.CopyFrom(proto)
    _bring_back(copy)
    return copy


def _bring_back(proto: ModelProto) -> None:
    for tensor in filter(is_parked, proto.graph.initializer):
        tensor.raw_data = bytes(_raw(tensor))
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
    path = _spooled(raw)
    for each in ("raw_data", "float_data", "int32_data", "int64_data", "double_data"):
        tensor.ClearField(each)
    point_to(tensor, path, 0, raw.nbytes)


def point_to(tensor: TensorProto, path: Path, offset: int, length: int) -> None:
    """Say that the values are in `path`, an absolute one."""
    _clear_place(tensor)
    _place(tensor, {"location": path, "offset": offset, "length": length})


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
    raw = _raw(tensor)
    if elements.is_narrow(tensor.data_type):
        inline = TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=bytes(raw))
        return numpy_helper.to_array(inline)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return raw.view(dtype).reshape(tuple(tensor.dims))


def take_raw(tensor: TensorProto) -> NDArray[np.uint8]:
    """The raw bytes, wherever they are, taken out of the tensor; none where it holds numbers."""
    raw = _raw(tensor) if is_parked(tensor) else np.frombuffer(tensor.raw_data, np.uint8)
    tensor.ClearField("raw_data")
    _clear_place(tensor)
    return raw


def _raw(tensor: TensorProto) -> NDArray[np.uint8]:
    """The bytes of the values, as a file has them."""
    if is_parked(tensor):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        return np.memmap(
            entries["location"], np.uint8, "r", int(entries["offset"]), int(entries["length"])
        )
    if tensor.raw_data:
        return np.frombuffer(tensor.raw_data, np.uint8)
    return elements.raw(numpy_helper.to_array(tensor))


def _spooled(raw: NDArray[np.uint8]) -> Path:
    """The file of this process with these bytes, written where there is none yet."""
    path = Path(_spool().name) / hashlib.sha256(raw.data).hexdigest()
    if not path.exists():
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as stream:
            stream.write(raw.data)
        Path(stream.name).replace(path)
    return path


def _clear_place(tensor: TensorProto) -> None:
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")


def _place(tensor: TensorProto, entries: dict[str, Any]) -> None:
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))


@lru_cache(maxsize=1)
def _spool() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="onnxq.weights.")


# --- files of models -------------------------------------------------------------------------


def without_weights(proto: ModelProto) -> ModelProto:
    """A copy whose large initializers are inputs, the last ones: type and shape, but no values."""
    result, _ = _skeleton(proto)
    given = {info.name for info in proto.graph.input}
    stored = list(result.graph.initializer)
    del result.graph.initializer[:]
    for tensor in stored:
        if (byte_size(tensor) or 0) <= SMALL:
            result.graph.initializer.append(tensor)
        elif tensor.name not in given:
            info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            result.graph.input.append(info)
    return result


def with_weights_of(source: ModelProto, proto: ModelProto) -> ModelProto:
    """What was made of `without_weights(source)`, with the weights again, in place."""
    del proto.graph.input[len(source.graph.input) :]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(source.graph.initializer)
    return proto


def write_split(proto: ModelProto, stream: IO[bytes], location: str) -> ModelProto:
    """Write the large initializers to `stream`; a copy of the model that finds them there.

    Args:
        location: name of the data file, relative to the model's folder.
    """
    result, large = _skeleton(proto)
    for source, tensor in large:
        raw = _raw(source)
        # Aligned, so that readers can map the file.
        stream.write(b"\0" * (-stream.tell() % 4096))
        _place(tensor, {"location": location, "offset": stream.tell(), "length": raw.nbytes})
        stream.write(raw.data)
    return result


def _skeleton(proto: ModelProto) -> tuple[ModelProto, list[tuple[TensorProto, TensorProto]]]:
    """A copy without large values, and pairs of each large tensor and its stand-in."""
    result, graph = ModelProto(), GraphProto()
    _copy_fields(proto.graph, graph, "initializer")
    large = []
    for tensor in proto.graph.initializer:
        if (byte_size(tensor) or 0) <= SMALL:
            graph.initializer.append(tensor)
            continue
        stand_in = graph.initializer.add(
            name=tensor.name, data_type=tensor.data_type, dims=tensor.dims,
            doc_string=tensor.doc_string,
        )  # fmt: skip
        large.append((tensor, stand_in))
    _copy_fields(proto, result, "graph")
    result.graph.CopyFrom(graph)
    return result, [
        (source, target)
        for (source, _), target in zip(
            large,
            (t for t in result.graph.initializer if (byte_size(t) or 0) > SMALL),
            strict=True,
        )
    ]


def _copy_fields(
    source: ModelProto | GraphProto, target: ModelProto | GraphProto, but: str
) -> None:
    for field, value in source.ListFields():
        if field.name == but:
            continue
        if hasattr(value, "extend"):
            getattr(target, field.name).extend(value)
        elif field.message_type is not None:
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)


@contextmanager
def as_file(proto: ModelProto) -> Iterator[Path]:
    """The model as a file for as long as the block lasts.

    Its large weights are in the files of those that are parked, so that none is written twice.
    """
    result, large = _skeleton(proto)
    for source, tensor in large:
        path = _parked_at(source)
        _place(tensor, {"location": path.name, "offset": 0, "length": path.stat().st_size})
    with tempfile.NamedTemporaryFile(dir=_spool().name, suffix=".onnx") as stream:
        stream.write(result.SerializeToString(deterministic=True))
        stream.flush()
        yield Path(stream.name)


def _parked_at(tensor: TensorProto) -> Path:
    """The file of this process that holds the values and nothing else."""
    if not is_parked(tensor):
        return _spooled(_raw(tensor))
    entries = {entry.key: entry.value for entry in tensor.external_data}
    path = Path(entries["location"])
    if path.parent == Path(_spool().name):
        return path
    return _taken_over(path, int(entries["offset"]), int(entries["length"]))


@cache
def _taken_over(path: Path, offset: int, length: int) -> Path:
    """The same of a part of a file that was there before."""
    return _spooled(np.memmap(path, np.uint8, "r", offset, length))


def data_name(path: Path, data: Path) -> str:
    """A name for the data file of the model `path` that tells its content.

    So a new model never changes the data of the one it replaces.
    """
    digest = hashlib.sha256()
    with data.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return f"{path.name}.{digest.hexdigest()[:12]}.data"
