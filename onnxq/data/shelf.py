"""Arrays that wait for their use: in memory as long as there is room, then in temporary files."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from onnxq.records import filling_temporary_folder

Array = NDArray[Any]
Shape = tuple[int, ...]

READ = 1 << 24
"""Bytes of a file that are looked at together, about."""


class Shelf:
    """Room that several `Values` share.

    Args:
        room: bytes of arrays to keep in memory.
        copies: keep copies of arrays that look at other memory: of ONNX Runtime's results each
            keeps all the memory of its session.
    """

    def __init__(self, room: int, *, copies: bool = False) -> None:
        self.room, self.copies = room, copies

    def values(self) -> Values:
        """A place for the arrays of one tensor."""
        return Values(self)


@dataclass(frozen=True)
class _Filed:
    """An array in a file: its first byte, shape and type."""

    offset: int
    shape: Shape
    dtype: np.dtype[Any]

    @property
    def row(self) -> int:
        """Bytes of one index of the first axis."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def end(self) -> int:
        return self.offset + self.shape[0] * self.row


@dataclass
class _Parts:
    """An array in memory, in parts along an axis until it is asked for."""

    arrays: list[Array]
    axis: int | None

    @property
    def whole(self) -> Array:
        if len(self.arrays) > 1:
            self.arrays = [np.concatenate(self.arrays, self.axis or 0)]
        return self.arrays[0]


class Values(Sequence[Array]):
    """The arrays of one tensor, group of samples by group.

    Those in memory are handed out as they are, not as copies. The file is gone with the last
    reference to it, however the process ends.
    """

    def __init__(self, shelf: Shelf | None = None) -> None:
        self._shelf = shelf
        self._items: list[_Parts | _Filed] = []
        self._file: IO[bytes] | None = None
        self._held = 0
        self._lock = Lock()

    @classmethod
    def of(cls, arrays: Sequence[Array]) -> Values:
        """Arrays that are in memory, and stay there."""
        if isinstance(arrays, Values):
            return arrays
        found = cls()
        found._items = [_Parts([array], 0) for array in arrays]
        return found

    def __del__(self) -> None:
        if self._shelf is not None:
            self._shelf.room += self._held
        if self._file is not None:
            self._file.close()

    def append(self, array: Array, *, axis: int | None = 0, share: float = 1.0) -> None:
        """Begin a group.

        Args:
            array: its first part, with that share of its samples.
            axis: along which the parts make up the whole; None where each part is the whole.
        """
        room = math.inf if self._shelf is None else self._shelf.room
        # Texts are Python's own objects, and parts along another axis would not lie in a row.
        files = axis == 0 and array.ndim and array.dtype.kind != "O"
        if files and array.nbytes / share > room:
            end = max((i.end for i in self._items if isinstance(i, _Filed)), default=0)
            self._write(end, array)
            self._items.append(_Filed(end, array.shape, array.dtype))
        else:
            self._items.append(_Parts([self._hold(array)], axis))

    def extend(self, array: Array) -> None:
        """Add the next part of the last group."""
        last = self._items[-1]
        if isinstance(last, _Filed):
            self._write(last.end, array)
            shape = (last.shape[0] + len(array), *last.shape[1:])
            self._items[-1] = replace(last, shape=shape)
        elif last.axis is not None:
            last.arrays.append(self._hold(array))

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        item = self._items[index]
        return item.whole if isinstance(item, _Parts) else self._read(item, 0, item.shape[0])

    def __iter__(self) -> Iterator[Array]:
        return (self[index] for index in range(len(self)))

    @property
    def shapes(self) -> list[Shape]:
        return [i.whole.shape if isinstance(i, _Parts) else i.shape for i in self._items]

    @property
    def dtype(self) -> np.dtype[Any]:
        first = self._items[0]
        return first.whole.dtype if isinstance(first, _Parts) else first.dtype

    def rows(self, index: int, chosen: slice) -> Array:
        """Some indices of a group's first axis; the slice's step is positive."""
        item = self._items[index]
        if isinstance(item, _Parts):
            return item.whole[chosen]
        places = range(*chosen.indices(item.shape[0]))
        stop = places[-1] + 1 if places else places.start
        return self._read(item, places.start, stop)[:: places.step]

    def pieces(self, index: int) -> list[slice]:
        """The rows of a group: all where they are in memory, else a few at a time."""
        item = self._items[index]
        if isinstance(item, _Parts):
            return [slice(0, None)]
        step = max(1, READ // max(item.row, 1))
        return [slice(first, first + step) for first in range(0, item.shape[0], step)]

    def change(self, work: Callable[[Array], object]) -> None:
        """Let a function change the arrays where they are, some rows at a time."""
        for index, item in enumerate(self._items):
            for chosen in self.pieces(index):
                array = self.rows(index, chosen)
                work(array)
                if isinstance(item, _Filed):
                    self._write(item.offset + chosen.start * item.row, array)

    def _hold(self, array: Array) -> Array:
        if self._shelf is None:
            return array
        self._shelf.room -= array.nbytes
        self._held += array.nbytes
        return array if array.flags.owndata or not self._shelf.copies else array.copy()

    def _write(self, offset: int, array: Array) -> None:
        content = np.ascontiguousarray(array).reshape(-1).view(np.ubyte).data
        with filling_temporary_folder(), self._lock:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="onnxq.", buffering=0)  # noqa: SIM115
            self._file.seek(offset)
            while content:
                content = content[self._file.write(content) :]

    def _read(self, item: _Filed, first: int, stop: int) -> Array:
        array = np.empty((stop - first, *item.shape[1:]), item.dtype)
        left = array.reshape(-1).view(np.ubyte).data
        with self._lock:
            if self._file is not None:
                self._file.seek(item.offset + first * item.row)
                while left and (count := self._file.readinto(left)):  # type: ignore[attr-defined]
                    left = left[count:]
        return array
