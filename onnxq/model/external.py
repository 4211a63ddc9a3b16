"""Weights in a file beside the model, for models that protobuf cannot hold in one (2 GiB)."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import onnx
from onnx import GraphProto, ModelProto, TensorProto, numpy_helper

INLINE_LIMIT = 1_900_000_000
"""Bytes of weights above which they go to a file beside the model."""

SMALL = 1024
"""Bytes up to which a tensor stays in the model file, such as shapes and scalars."""


def byte_size(tensor: TensorProto) -> int | None:
    """Bytes of the tensor's raw data; None for types and shapes that have none."""
    stored = set(TensorProto.DataType.values()) - {TensorProto.UNDEFINED, TensorProto.STRING}
    if tensor.data_type not in stored or any(size < 0 for size in tensor.dims):
        return None
    count = math.prod(tensor.dims)
    if tensor.data_type in {TensorProto.UINT4, TensorProto.INT4, TensorProto.FLOAT4E2M1}:
        return (count + 1) // 2
    itemsize: int = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return count * itemsize


def is_large(proto: ModelProto) -> bool:
    """Whether the weights need a file of their own."""
    return sum(byte_size(tensor) or 0 for tensor in proto.graph.initializer) >= INLINE_LIMIT


def without_weights(proto: ModelProto) -> ModelProto:
    """A copy whose large initializers have type and shape but no values, and no data location."""
    result, _ = _skeleton(proto)
    return result


def write_split(proto: ModelProto, stream: IO[bytes], location: str) -> ModelProto:
    """Write the large initializers to `stream`; a copy of the model that finds them there.

    Args:
        location: name of the data file, relative to the model's folder.
    """
    result, large = _skeleton(proto)
    for source, tensor in large:
        raw = source.raw_data or numpy_helper.to_array(source).tobytes()
        # Aligned, so that readers can map the file.
        stream.write(b"\0" * (-stream.tell() % 4096))
        entries = {"location": location, "offset": stream.tell(), "length": len(raw)}
        stream.write(raw)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
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
    """The model as a file for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix="onnxq.") as folder:
        path = Path(folder) / "model.onnx"
        write(proto, path)
        yield path


def write(proto: ModelProto, path: Path) -> None:
    """Write a model of any size for this program's own use: `path`, and perhaps `path`.data."""
    if is_large(proto):
        with path.with_name(path.name + ".data").open("wb") as stream:
            proto = write_split(proto, stream, path.name + ".data")
    path.write_bytes(proto.SerializeToString(deterministic=True))


def data_name(path: Path, data: Path) -> str:
    """A name for the data file of the model `path` that tells its content.

    So a new model never changes the data of the one it replaces.
    """
    digest = hashlib.sha256()
    with data.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return f"{path.name}.{digest.hexdigest()[:12]}.data"
