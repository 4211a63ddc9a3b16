"""The calibration file: a zip of a JSON header and numpy arrays, never pickled, byte-stable."""

from __future__ import annotations

import io
import json
import math
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import onnxq
from onnxq.calibration import bins, stored_costs, stored_header
from onnxq.calibration.costs import Costs
from onnxq.calibration.statistics import Calibration, NotFinite, Provenance, TensorStatistics
from onnxq.errors import DataError
from onnxq.records import write_bytes
from onnxq.refusal import Refusal

FORMAT = "onnxq/calibration"
VERSION = 2
_EPOCH = (1980, 1, 1, 0, 0, 0)
_ARRAYS = ("minimum", "maximum", "positions", "counts")
_HALVES = "halves"
LARGEST_ENTRY = 1 << 30
"""Bytes that one entry of a file may unpack to; a real one takes a few megabytes."""
LARGEST_COUNTS = 1 << 32
"""Bytes that the histograms of one tensor may take in memory."""


def save(calibration: Calibration, path: Path) -> None:
    """Write the file, whole or not at all; the same calibration gives the same bytes."""
    write_bytes(path, to_bytes(calibration))


def to_bytes(calibration: Calibration) -> bytes:
    """The content of the file."""
    entries, arrays = [], []
    costs = {} if calibration.costs is None else calibration.costs.tensors
    # One at a time: a tensor's dense counts are far larger than what is stored of them.
    for number, (name, statistics) in enumerate(calibration.tensors.items()):
        entry, stored = _entry(name, statistics), _arrays(statistics)
        if name in costs:
            entry["costs"] = stored_costs.header_of(costs[name])
            stored |= stored_costs.arrays_of(costs[name])
        entries.append(entry)
        arrays += [(f"{number}/{key}.npy", array) for key, array in stored.items()]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        header = json.dumps(_header(calibration) | {"tensors": entries}, indent=1)
        _add(archive, "header.json", header.encode())
        for name, array in arrays:
            stream = io.BytesIO()
            np.lib.format.write_array(stream, array, allow_pickle=False)
            _add(archive, name, stream.getvalue())
    return buffer.getvalue()


def _arrays(statistics: TensorStatistics) -> dict[str, NDArray[Any]]:
    positions = np.flatnonzero(statistics.counts)
    arrays: dict[str, NDArray[Any]] = {
        "minimum": statistics.minimum,
        "maximum": statistics.maximum,
        "positions": np.diff(positions, prepend=0).astype(np.uint32),
        "counts": statistics.counts.ravel()[positions].astype(np.uint64),
    }
    if statistics.halves is not None:
        arrays[_HALVES] = statistics.halves
    return {name: _smallest(array) for name, array in arrays.items()}


def _entry(name: str, statistics: TensorStatistics) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": name, "axis": statistics.axis, "channels": statistics.channels,
        "top": statistics.top, "not_finite": statistics.not_finite, "step": statistics.step,
    }  # fmt: skip
    first = statistics.first_not_finite
    return entry | ({"first_not_finite": asdict(first)} if first else {})


def _smallest(array: NDArray[Any]) -> NDArray[Any]:
    """Store integers in the narrowest unsigned type that holds them."""
    if array.dtype.kind != "u":
        return array
    return array.astype(np.min_scalar_type(int(array.max(initial=0))))


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)


def _header(calibration: Calibration) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "onnxq": onnxq.__version__,
        "model": calibration.provenance.model,
        "preprocessing": calibration.provenance.preprocessing,
        "batch_size": calibration.provenance.batch_size,
        "bins": calibration.provenance.schema,
        "data": calibration.data,
        "note": calibration.note,
        "samples": calibration.samples,
        "shards": [list(shard) for shard in calibration.shards],
        **({} if calibration.costs is None else {"costs": _of_all(calibration.costs)}),
    }


def _of_all(costs: Costs) -> dict[str, Any]:
    refused = {name: str(reason) for name, reason in sorted(costs.refused.items())}
    return {"samples": costs.samples, "refused": refused}


def load(path: Path) -> Calibration:
    """Read a calibration file.

    Raises:
        DataError: missing, not a calibration file, damaged, or of another version or bins.
    """
    try:
        return from_bytes(path.read_bytes(), path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such calibration file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except DataError:
        raise
    # zlib, zipfile, json and numpy each raise their own on damaged bytes.
    except Exception as error:  # noqa: BLE001
        raise DataError(
            f"{path}: not a calibration file, or a damaged one ({type(error).__name__})",
            hint="run onnxq calibrate again",
        ) from None


def from_bytes(content: bytes, path: Path) -> Calibration:
    """The calibration in the content of a file; `path` is for messages."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        header = json.loads(_content(archive, "header.json"))
        _check_header(header, path)
        return _read(archive, header)


def _read(archive: zipfile.ZipFile, header: Any) -> Calibration:
    stored_header.check(header)
    _check_names(archive, header)
    tensors = {
        entry["name"]: _read_tensor(archive, number, entry)
        for number, entry in enumerate(header["tensors"])
    }
    provenance = Provenance(
        header["model"], header["preprocessing"], header["batch_size"], header["bins"]
    )
    return Calibration(
        provenance, header["data"], header["note"], header["samples"],
        tuple((i, n) for i, n in header["shards"]), tensors,
        _read_costs(archive, header, tensors),
    )  # fmt: skip


def _read_costs(
    archive: zipfile.ZipFile, header: Any, tensors: dict[str, TensorStatistics]
) -> Costs | None:
    if "costs" not in header:
        return None
    found = {}
    for number, entry in enumerate(header["tensors"]):
        if "costs" in entry:
            arrays = {
                name: _read_array(archive, f"{number}/{name}.npy") for name in stored_costs.ARRAYS
            }
            statistics = tensors[entry["name"]]
            found[entry["name"]] = stored_costs.read(statistics, entry["costs"], arrays)
    whole = header["costs"]
    refused = {name: Refusal(reason) for name, reason in whole["refused"].items()}
    return Costs(int(whole["samples"]), found, refused)


def _check_header(header: Any, path: Path) -> None:
    if header.get("format") != FORMAT:
        raise DataError(f"{path}: not a calibration file")
    if header.get("version") != VERSION or header.get("bins") != bins.SCHEMA:
        raise DataError(
            f"{path}: written by another onnxq ({header.get('onnxq')}) in a format this one "
            "does not read",
            hint="run onnxq calibrate again",
        )


def _check_names(archive: zipfile.ZipFile, header: Any) -> None:
    """An entry of another name is one that the file lacks: names have no checksum."""
    names = archive.namelist()
    arrays = (*_ARRAYS, _HALVES, *stored_costs.ARRAYS)
    known = {f"{number}/{name}.npy" for number in range(len(header["tensors"])) for name in arrays}
    # What a damaged length takes for a comment or an extra field is the next entry.
    odd = any(each.comment or each.extra for each in archive.infolist())
    if odd or len(names) > len(set(names)) or not {*known, "header.json"}.issuperset(names):
        raise ValueError("entries that the header does not tell of")


def _read_tensor(archive: zipfile.ZipFile, number: int, entry: dict[str, Any]) -> TensorStatistics:
    channels, top = int(entry["channels"]), int(entry["top"])
    minimum, maximum, positions, counts = (
        _read_array(archive, f"{number}/{name}.npy") for name in _ARRAYS
    )
    halves = None
    if f"{number}/{_HALVES}.npy" in archive.namelist():
        halves = _read_array(archive, f"{number}/{_HALVES}.npy").astype(np.float32)
    first = entry.get("first_not_finite")
    if not bins.FLOOR < top <= bins.CEILING:
        raise ValueError("window out of range")
    if not minimum.shape == maximum.shape == (channels,) or positions.shape != counts.shape:
        raise ValueError("arrays of other sizes than the header says")
    if [minimum.dtype.kind, maximum.dtype.kind] != ["f"] * 2 or {"u"} != {
        positions.dtype.kind, counts.dtype.kind,
    }:  # fmt: skip
        raise ValueError("arrays of other types")
    if halves is not None and halves.shape != (2, 2):
        raise ValueError("halves of another shape")
    shape = channels, 1 + 2 * bins.magnitude_bins(top)
    if 8 * math.prod(shape) > LARGEST_COUNTS:
        raise ValueError("histograms too large")
    # No row holds more than all of them.
    narrow = int(counts.sum()) <= np.iinfo(np.int32).max
    rows = np.zeros(shape, np.int32 if narrow else np.int64)
    rows.ravel()[np.cumsum(positions.astype(np.int64))] = counts
    return TensorStatistics(
        entry["axis"], minimum.astype(np.float32), maximum.astype(np.float32),
        bins.narrowest(rows), top, int(entry["not_finite"]),
        NotFinite(**first) if first else None, halves, int(entry["step"]),
    )  # fmt: skip


def _read_array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    array: NDArray[Any] = np.lib.format.read_array(
        io.BytesIO(_content(archive, name)), allow_pickle=False
    )
    return array


def _content(archive: zipfile.ZipFile, name: str) -> bytes:
    """An entry, unless it is a decompression bomb; `zipfile` reads no more than its header says."""
    if archive.getinfo(name).file_size > LARGEST_ENTRY:
        raise ValueError("entry too large")
    return archive.read(name)
