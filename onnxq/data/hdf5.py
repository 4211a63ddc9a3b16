"""HDF5 files: one data set for each model input, as the arrays of an .npz file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.data.extras import require
from onnxq.errors import DataError

if TYPE_CHECKING:
    from onnxq.data.batching import Array


@dataclass(frozen=True)
class Hdf5Column:
    """A data set of an HDF5 file; it is opened anew for each reading."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def rows(self, ranges: Iterable[tuple[int, int]]) -> Iterator[Array]:
        with self._open() as values:
            for begin, end in ranges:
                yield values[begin:end]

    def whole(self) -> Array:
        with self._open() as values:
            return np.asarray(values[()])

    @contextmanager
    def _open(self) -> Iterator[Any]:
        h5py = require("h5py", "hdf5")
        try:
            with h5py.File(self.path, "r") as file:
                yield file[self.name]
        except (OSError, KeyError, RuntimeError) as error:
            raise DataError(f"cannot read {self.path}: {error}") from error


def hdf5_columns(path: Path) -> dict[str, Hdf5Column]:
    """The data sets at the top of the file by name. Raises `DataError` where it is no HDF5 file."""
    h5py = require("h5py", "hdf5")
    try:
        with h5py.File(path, "r") as file:
            return {
                name: Hdf5Column(path, name, tuple(item.shape), item.dtype)
                for name, item in file.items()
                if isinstance(item, h5py.Dataset) and item.shape is not None
            }
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}", hint="expected an HDF5 file") from error
