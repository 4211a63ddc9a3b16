"""Read and write model files: everything is checked on the way in, nothing is half-written."""

from __future__ import annotations

import os
import re
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto

from onnxq.errors import ModelError, OutputError
from onnxq.model import external, split_files
from onnxq.model.external_files import in_files, read_data
from onnxq.model.model import Model
from onnxq.model.plugins import cut_off, cut_plugins, put_back
from onnxq.model.session import has_floating_numbers, open_session
from onnxq.model.structure import NO_TEXT, check_structure, check_validity
from onnxq.records import atomic_path, require_place, temporary_beside
from onnxq.suggest import suggest

NEWEST_OPSET = 26
"""Newest default operator set that the table was checked against. An ONNX Runtime that knows fewer
refuses the model itself."""


IN_MEMORY = "the model"
"""What messages call a model that is no file."""


def load(path: str | os.PathLike[str]) -> Model:
    """Load, check and complete with inferred shapes.

    Args:
        path: an .onnx file, or a link to one; external data must lie beside it, or be links to
            files beside that one.

    Raises:
        ModelError: the file is missing, is not ONNX, is truncated, invalid or too new, or its
            external data are missing or outside its folder.
    """
    path = Path(path)
    proto = _parse(_content(path), path)
    _check_versions(proto, path)
    stored = None if in_files(proto) else proto.ByteSize()
    read_data(proto, path)
    return _checked(proto, path, path, stored)


def read(model: bytes | ModelProto) -> Model:
    """A model that is no file, checked and completed as `load` does.

    Args:
        model: what lies in an .onnx file, or that as a message, which is copied.

    Raises:
        ModelError: as `load`; or its weights lie in files, which nobody knows the folder of.
    """
    proto = ModelProto()
    if isinstance(model, ModelProto):
        proto.CopyFrom(model)
        _require_graph(proto, IN_MEMORY)
    else:
        proto = _parse(model, IN_MEMORY)
    _check_versions(proto, IN_MEMORY)
    if in_files(proto):
        raise ModelError(
            f"{IN_MEMORY}: its weights lie in other files", hint="give the path of its file"
        )
    return _checked(proto, IN_MEMORY, None, None)


def _checked(
    proto: ModelProto, where: Path | str, source: Path | None, stored: int | None
) -> Model:
    """The model; `stored` is the size of its file, None where nobody knows it."""
    _check(proto, where)
    try:
        proto = cut_plugins(proto)
    except ModelError as error:
        raise ModelError(f"{where}: {error.message}", hint=error.hint) from None
    _drop_repeated_names(proto)
    return Model.adopt(_with_shapes(proto), source, stored)


def _near(path: Path) -> str:
    """What model beside the path may be meant; "" where none has such a name."""
    try:
        return suggest(path.name, sorted(each.name for each in path.parent.glob("*.onnx")))
    except OSError:
        return ""


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file", hint=_near(path)) from None
    except IsADirectoryError:
        raise ModelError(f"{path} is a folder, not an .onnx file") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error


def _parse(content: bytes, path: Path | str) -> ModelProto:
    if not content:
        raise ModelError(f"{path}: the file is empty")
    proto = ModelProto()
    try:
        proto.ParseFromString(content)
    except UnicodeDecodeError:
        raise ModelError(f"{path}: not a valid ONNX model: {NO_TEXT}") from None
    except DecodeError:
        raise ModelError(
            f"{path}: not an ONNX file, or a truncated one", hint="export or copy it again"
        ) from None
    _require_graph(proto, path)
    return proto


def _require_graph(proto: ModelProto, path: Path | str) -> None:
    if not proto.HasField("graph") or not proto.opset_import:
        raise ModelError(f"{path}: not an ONNX model: it has no graph or no operator set")


def _check_versions(proto: ModelProto, path: Path | str) -> None:
    opset = next((o.version for o in proto.opset_import if o.domain in {"", "ai.onnx"}), 0)
    newest = min(NEWEST_OPSET, onnx.defs.onnx_opset_version())
    if opset > newest:
        raise ModelError(
            f"{path}: opset {opset} is too new; this onnxq reads up to {newest}",
            hint="export with an older opset, or update onnxq",
        )
    if proto.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"{path}: IR version {proto.ir_version} is too new; this onnx reads up to "
            f"{onnx.IR_VERSION}",
            hint="update the onnx package",
        )


def _drop_repeated_names(proto: ModelProto) -> None:
    """Leave a node name to the first that has it: ONNX Runtime takes nodes without, but no two."""
    taken: set[str] = set()
    for node in proto.graph.node:
        if node.name in taken:
            node.name = ""
        taken.add(node.name)


def _check(proto: ModelProto, path: Path | str) -> None:
    # Before anything is sized by what they claim; the checker does not look at all of it.
    wrong = check_structure(proto)
    if wrong:
        raise ModelError(f"{path}: not a valid ONNX model: {wrong}")
    try:
        check_validity(proto)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ModelError(f"{path}: not a valid ONNX model: {_first_line(error)}") from None
    for value in (*proto.graph.input, *proto.graph.output):
        if value.type.WhichOneof("value") == "optional_type":
            raise ModelError(f"{path}: {value.name!r} has an optional type, which onnxq cannot run")


def _with_shapes(proto: ModelProto) -> ModelProto:
    """Add inferred shapes; a model whose shapes cannot be inferred keeps the declared ones."""
    try:
        shaped = onnx.shape_inference.infer_shapes(
            split_files.without_weights(proto), data_prop=True
        )
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return proto
    return split_files.with_weights_of(proto, shaped)


def infer_shapes(model: Model) -> Model:
    """The model with the shapes of its intermediate tensors inferred anew."""
    return Model.adopt(_with_shapes(model.message), model.source)


def read_written(path: Path) -> Model:
    """A model that `save` or `split_files.as_file` wrote."""
    proto = _parse(_content(path), path)
    read_data(proto, path)
    return Model.adopt(proto, path)


def save(model: Model, path: str | os.PathLike[str]) -> None:
    """Write the model; before it takes its name the file is loaded back in ONNX Runtime.

    Weights beyond 1.9 GB go to a file beside it, whose name tells their content. Both files are
    there in the end, or neither is; data of a model that is replaced are removed.

    Raises:
        OutputError: the folder does not exist, is read-only or is full.
        ModelError: ONNX Runtime does not load the result (then nothing is written).
    """
    path = Path(path)
    if external.is_split(model.message):
        _save_with_data(model.message, path)
        return
    old = _data_files(path)
    with atomic_path(path) as temporary:
        content = external.inlined(put_back(model.message))
        temporary.write_bytes(content.SerializeToString(deterministic=True))
        # ONNX Runtime knows no plugin: then it loads what comes before.
        whole = temporary if cut_off(model.message) is None else model
        open_session(whole, optimize=not has_floating_numbers(model.message))
    _remove(old, path)


def _save_with_data(proto: ModelProto, path: Path) -> None:
    old = _data_files(path)
    with atomic_path(path) as temporary:
        data = temporary.with_name(temporary.name + ".data")
        try:
            with data.open("wb") as stream:
                split = split_files.write_split(put_back(proto), stream, "")
                os.fsync(stream.fileno())
            name = split_files.data_name(path, data)
            for tensor in split.graph.initializer:
                for entry in tensor.external_data:
                    if entry.key == "location":
                        entry.value = name
            temporary.write_bytes(split.SerializeToString(deterministic=True))
            final = path.with_name(name)
            existed = final.exists()
            data.replace(final)
            try:
                whole = temporary if cut_off(proto) is None else proto
                open_session(whole, optimize=not has_floating_numbers(proto))
            except BaseException:
                if not existed:
                    final.unlink(missing_ok=True)
                raise
        finally:
            data.unlink(missing_ok=True)
    _remove(old - {name}, path)


def _data_files(path: Path) -> set[str]:
    """The data files that the model at `path` reads, of those that `save` gave their names.

    No others may be removed with it: they can be those of a run that is about to write this model.
    """
    pattern = re.compile(re.escape(path.name) + r"\.[0-9a-f]{12}\.data")
    there = {each.name for each in path.parent.glob("*.data") if pattern.fullmatch(each.name)}
    if not there or not path.is_file():
        return set()
    try:
        proto = _parse(_content(path), path)
    except ModelError:
        return set()
    entries = (entry for tensor in proto.graph.initializer for entry in tensor.external_data)
    return there & {entry.value for entry in entries if entry.key == "location"}


def _remove(names: set[str], path: Path) -> None:
    for name in names:
        path.with_name(name).unlink(missing_ok=True)


def require_writable(path: Path) -> None:
    """Fail before long work if `path` cannot be written at its end."""
    require_place(path)
    if path.exists() and not os.access(path, os.W_OK):
        raise OutputError(f"cannot write {path}: it is read-only", hint="name another file")
    # Only trying tells for root, and on read-only or virtual file systems.
    try:
        with temporary_beside(path):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror}", hint="choose a folder you can write to"
        ) from None


def require_distinct(output: Path, *inputs: Path | None) -> None:
    """Refuse to write a result over one of the files it is made from."""
    for source in inputs:
        if source and output.exists() and source.exists() and output.samefile(source):
            raise OutputError(f"cannot write {output}: it is an input", hint="name another file")


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "unknown")
