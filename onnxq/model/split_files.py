"""A model and its weights apart: without them for who looks at the graph, beside them in files."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

import onnx
from onnx import GraphProto, ModelProto, TensorProto

from onnxq.model import external
from onnxq.model.external import (
    byte_size,
    is_parked,
    mapped,
    place_of,
    point_to,
    raw_of,
    spool,
    spooled,
)


def without_weights(proto: ModelProto) -> ModelProto:
    """A copy whose large initializers are inputs, the last ones: type and shape, but no values."""
    result, _ = _skeleton(proto)
    given = {info.name for info in proto.graph.input}
    stored = list(result.graph.initializer)
    del result.graph.initializer[:]
    for tensor in stored:
        if (byte_size(tensor) or 0) <= external.SMALL:
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
        raw = raw_of(source)
        # Aligned, so that readers can map the file.
        stream.write(b"\0" * (-stream.tell() % 4096))
        point_to(tensor, location, stream.tell(), raw.nbytes)
        stream.write(raw.data)
    return result


def _skeleton(proto: ModelProto) -> tuple[ModelProto, list[tuple[TensorProto, TensorProto]]]:
    """A copy without large values, and pairs of each large tensor and its stand-in."""
    result, graph = ModelProto(), GraphProto()
    _copy_fields(proto.graph, graph, "initializer")
    large = []
    for tensor in proto.graph.initializer:
        if (byte_size(tensor) or 0) <= external.SMALL:
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
            (t for t in result.graph.initializer if (byte_size(t) or 0) > external.SMALL),
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
        point_to(tensor, path.name, 0, path.stat().st_size)
    with tempfile.NamedTemporaryFile(dir=spool().name, suffix=".onnx") as stream:
        stream.write(result.SerializeToString(deterministic=True))
        stream.flush()
        yield Path(stream.name)


def _parked_at(tensor: TensorProto) -> Path:
    """The file of this process that holds the values and nothing else."""
    if not is_parked(tensor):
        return spooled(raw_of(tensor))
    path, offset, length = place_of(tensor)
    return path if path.parent == Path(spool().name) else _taken_over(path, offset, length)


@cache
def _taken_over(path: Path, offset: int, length: int) -> Path:
    """The same of a part of a file that was there before."""
    return spooled(mapped(path, offset, length))


def data_name(path: Path, data: Path) -> str:
    """A name for the data file of the model `path` that tells its content.

    So a new model never changes the data of the one it replaces.
    """
    digest = hashlib.sha256()
    with data.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return f"{path.name}.{digest.hexdigest()[:12]}.data"
