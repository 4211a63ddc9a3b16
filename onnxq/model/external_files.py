"""External data of a model's file: found beside it, and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto

from onnxq.errors import ModelError
from onnxq.model import external
from onnxq.refusal import Refusal

MOST_LINKS = 40
"""Links that are followed from one to the next, as Linux does."""


def read_data(proto: ModelProto, path: Path) -> None:
    """Read the tensors that are stored in other files, in place; those of a large model are parked.

    Raises:
        ModelError: a file is missing, lies outside the model's folders or does not fit its tensor.
    """
    folders = _folders(path)
    weights = list(proto.graph.initializer) if external.is_large(proto) else []
    parks = set(map(id, weights))
    for tensor in in_files(proto):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        _read_external(tensor, entries, folders, path, parks=id(tensor) in parks)


def in_files(proto: ModelProto) -> list[TensorProto]:
    """The tensors that are stored in other files: weights, constants, those of bodies."""
    tensors = onnx.external_data_helper._get_all_tensors(proto)  # noqa: SLF001
    return [each for each in tensors if each.data_location == TensorProto.EXTERNAL]


def data_files(path: Path) -> set[Path]:
    """The files that hold weights of the model in this one; none where it holds no model."""
    try:
        proto = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError, ValueError):
        return set()
    entries = (entry for tensor in in_files(proto) for entry in tensor.external_data)
    found = (_find(_folders(path), each.value) for each in entries if each.key == "location")
    return {each for each in found if isinstance(each, Path)}


def _folders(path: Path) -> list[Path]:
    """The folder of the model as it was named, and those of the links and the file it leads to.

    A Hugging Face cache keeps a model's files as links, side by side, into one folder of blobs.
    """
    folders: list[Path] = []
    for _ in range(MOST_LINKS):
        folder = path.absolute().parent.resolve()
        if folder not in folders:
            folders.append(folder)
        if not path.is_symlink():
            break
        path = folder / path.readlink()
    return folders


def _find(folders: list[Path], location: str) -> Path | Refusal:
    """The file of this name beside the model; it may be a link into another of the folders.

    That is ONNX Runtime's rule: neither the name nor a link leads out of the folders where the
    model is.
    """
    outside = Refusal(f"lie outside the model's folder: {location!r}")
    first = Path(os.path.normpath(location)).parts[:1]
    if Path(location).is_absolute() or first in {(), ("..",)}:
        return outside
    for folder in folders:
        target = folder / location
        if not _is_file(target):
            continue
        real = target.resolve()
        return real if any(each in real.parents for each in folders) else outside
    return Refusal(f"are missing: no file {location!r} beside the model")


def _read_external(
    tensor: TensorProto, entries: dict[str, str], folders: list[Path], path: Path, *, parks: bool
) -> None:
    where = f"{path}: external data of tensor {tensor.name!r}"
    location = entries.get("location", "")
    if not location or "\0" in location:
        raise ModelError(f"{where} name no file")
    target = _find(folders, location)
    if isinstance(target, Refusal):
        raise ModelError(f"{where} {target}")
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
    except ValueError:
        raise ModelError(f"{where} have an offset or length that is no number") from None
    available = target.stat().st_size - offset
    expected = external.byte_size(tensor)
    if expected is None:
        raise ModelError(f"{where} have a type or shape that cannot be stored outside the model")
    length = expected if length < 0 else length
    if offset < 0 or length != expected or length > available:
        raise ModelError(
            f"{where} do not fit {location!r}: {length} bytes at offset {offset}, "
            f"{expected} expected, {max(available, 0)} there"
        )
    if parks and length > external.SMALL:
        external.point_to(tensor, target, offset, length)
        return
    with target.open("rb") as stream:
        stream.seek(offset)
        tensor.raw_data = stream.read(length)
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long, or one that this file system cannot hold
        return False
