"""Versioned records as JSON, and files that are complete or absent."""

from __future__ import annotations

import dataclasses
import enum
import errno
import json
import math
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from onnxq.errors import OutputError, ResourceError, UsageError


class Named:
    """Base of values that a record refers to by their name, such as a row of a table."""

    name: str


VERSIONS: Mapping[str, int] = MappingProxyType(
    {"quantize": 2, "validate": 2, "emulate": 2, "inspect": 2, "explain": 2}
)
"""Command → version of its JSON document, where that is not 1 any more (docs/commands.md)."""


def to_plain(value: object) -> Any:
    """Turn dataclasses, enums, paths and numpy values into what `json` can write.

    NaN and infinities, which JSON lacks, become the strings "nan", "inf" and "-inf".
    """
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Named):
        return value.name
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: to_plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if not field.name.startswith("_")
        }
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return to_plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Path):
        return str(value)
    return value


def to_json(kind: str, value: object) -> str:
    """Write a record: `kind` names its schema, which has a version."""
    return json.dumps(
        {"schema": f"onnxq/{kind}", "version": VERSIONS.get(kind, 1), **to_plain(value)}, indent=1
    )


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file; raises `UsageError` where it cannot be read as one."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return dict(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not a TOML file: it is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not a TOML file: {error}") from None


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, else it vanishes.

    The rename is atomic, so a reader sees the old file or the new one. Raises `OutputError` where
    the folder is missing or read-only, or the disk is full.
    """
    path = Path(path)
    require_place(path)
    try:
        with temporary_beside(path) as temporary:
            yield temporary
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def require_place(path: Path) -> None:
    """Raise `OutputError` where no file can be at this place, or what is there is none."""
    try:
        if not path.parent.is_dir():
            raise OutputError(
                f"cannot write {path}: the folder {path.parent} does not exist",
                hint="create it first",
            )
        if path.is_dir():
            raise OutputError(f"cannot write {path}: it is a folder", hint="name a file")
        # A device or a pipe would be lost: results are renamed into their place.
        if path.exists() and not path.is_file():
            raise OutputError(f"cannot write {path}: it is no regular file", hint="name a file")
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror}", hint="choose a folder you can write to"
        ) from None


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """An empty hidden file in the folder of `path`, gone at the end if it is still there.

    Raises OSError where it cannot be made.
    """
    # Named before it is made: an interrupt between the two leaves nothing behind.
    temporary = path.with_name(_temporary_name(path.name, secrets.token_hex(4), path.suffix))
    try:
        temporary.open("xb").close()
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def filling_temporary_folder() -> Iterator[None]:
    """Write temporary files; raises `ResourceError` where their folder is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise ResourceError(
            f"the folder for temporary files, {tempfile.gettempdir()}, is full",
            hint="set TMPDIR to a larger one",
        ) from None


def _temporary_name(name: str, mark: str, suffix: str) -> str:
    return f".{name}.{mark}.tmp{suffix}"


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write an .npz file, whole or not at all; the same arrays give the same bytes."""
    import zipfile

    from numpy.lib import format as npy

    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in arrays.items():
            # ZipInfo's own date is that of 1980.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as stream:
                npy.write_array(stream, array, allow_pickle=False)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
