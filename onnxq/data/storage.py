"""NumPy files read a few rows at a time: .npy files and the members of .npz archives.

Reading rows keeps memory flat however long the array is, for compressed archives too; a memory
map would do so only for .npy, and its pages would still count as the process's memory. Pickles
are never read: an array of Python objects is refused by its header.
"""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.lib import format as npy

from onnxq.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from onnxq.data.batching import Array

_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    SyntaxError,
    TypeError,
    RuntimeError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy and zipfile raise for files that are damaged, encrypted or of another kind."""


class Column(Protocol):
    """An array, wherever it lies, that can be read a few rows at a time."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def rows(self, ranges: Iterable[tuple[int, int]]) -> Iterator[Array]:
        """Yield the rows of each half-open range; the ranges ascend."""
        ...

    def whole(self) -> Array:
        """All of it."""
        ...


@dataclass(frozen=True, eq=False)
class MemoryColumn:
    """An array in memory."""

    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    def rows(self, ranges: Iterable[tuple[int, int]]) -> Iterator[Array]:
        for begin, end in ranges:
            yield self.array[begin:end]

    def whole(self) -> Array:
        return self.array


@dataclass(frozen=True)
class StoredColumn:
    """An array in an .npy file, or in the member `member` of an .npz archive.

    Attributes:
        offset: where its values start, in bytes.
        fortran: whether axis 0 varies fastest; such an array is read as a whole.
    """

    path: Path
    member: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int

    def rows(self, ranges: Iterable[tuple[int, int]]) -> Iterator[Array]:
        with _open(self.path, self.member) as stream:
            if self.fortran:
                yield from MemoryColumn(self._read(stream, 0, self.shape)).rows(ranges)
                return
            for begin, end in ranges:
                yield self._read(stream, begin, (end - begin, *self.shape[1:]))

    def whole(self) -> Array:
        with _open(self.path, self.member) as stream:
            return self._read(stream, 0, self.shape)

    def _read(self, stream: IO[bytes], begin: int, shape: tuple[int, ...]) -> Array:
        """So many rows, in an array of this shape, from row `begin` on."""
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        with _refusing(self.path, self.member):
            stream.seek(self.offset + begin * row)
            # A buffer of another size than the shape, from a truncated file, fails to reshape.
            content = stream.read(math.prod(shape) * self.dtype.itemsize)
            values = np.frombuffer(content, self.dtype)
            return values.reshape(shape, order="F" if self.fortran else "C")


def npy_column(path: Path) -> StoredColumn:
    """The array of an .npy file. Raises `DataError` where it is none, or is pickled."""
    with _refusing(path):
        size = path.stat().st_size
    return _column(path, None, size)


def npz_columns(path: Path) -> dict[str, StoredColumn]:
    """The arrays of an .npz archive by name. Raises `DataError` as `npy_column` does."""
    with _refusing(path), zipfile.ZipFile(path) as archive:
        # Not `is_dir`, which fails for an entry without a name.
        members = [entry for entry in archive.infolist() if not entry.filename.endswith("/")]
    return {
        entry.filename.removesuffix(".npy"): _column(path, entry.filename, entry.file_size)
        for entry in members
    }


def _column(path: Path, member: str | None, size: int) -> StoredColumn:
    with _open(path, member) as stream, _refusing(path, member):
        version = npy.read_magic(stream)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read_header(stream)
        offset = stream.tell()
    if dtype.hasobject:
        raise DataError(
            f"{_label(path, member)} holds Python objects, which only pickle can read",
            hint="save it as a plain array of numbers; onnxq never unpickles",
        )
    if min(shape, default=0) < 0 or offset + math.prod(shape) * dtype.itemsize > size:
        raise DataError(f"{_label(path, member)} is truncated", hint="write or copy it again")
    return StoredColumn(path, member, shape, dtype, fortran, offset)


@contextmanager
def _open(path: Path, member: str | None) -> Iterator[IO[bytes]]:
    """The bytes of the file or of its member."""
    if member is None:
        with _refusing(path):
            stream = path.open("rb")
        with stream:
            yield stream
        return
    with _refusing(path, member):
        archive = zipfile.ZipFile(path)
    with archive:
        with _refusing(path, member):
            inner = archive.open(member)
        with inner:
            yield inner


@contextmanager
def _refusing(path: Path, member: str | None = None) -> Iterator[None]:
    """Turn the many ways a damaged file shows into a `DataError` that names it."""
    try:
        yield
    except _UNREADABLE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise DataError(
            f"cannot read {_label(path, member)}: {reason}",
            hint="expected arrays as numpy.save and numpy.savez write them",
        ) from error


def _label(path: Path, member: str | None) -> str:
    return str(path) if member is None else f"array {member.removesuffix('.npy')!r} of {path}"
