"""WebDataset tar files, read in place and never extracted.

Members whose names agree up to the first dot after the last slash are one sample: `0001.jpg` and
`0001.cls`, or `0001.input.npy`.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from onnxq.data.folders import EXTENSIONS
from onnxq.data.records import Record, RecordSource, as_labels
from onnxq.errors import DataError

if TYPE_CHECKING:
    from onnxq.data.batching import BatchAxes
    from onnxq.data.preprocess import Preprocessing
    from onnxq.model.model import TensorSpec

LABEL = ".cls"
"""Extension of a member that holds the class index as text."""


class Member(NamedTuple):
    """Where a member's content lies in the tar file."""

    offset: int
    size: int


@dataclass(frozen=True)
class TarReader:
    """Samples of a tar file.

    Attributes:
        keys: names of the samples.
        members: for each sample, input name → kind and place.
    """

    path: Path
    keys: tuple[str, ...]
    members: tuple[dict[str, tuple[str, Member]], ...]

    def name(self, index: int) -> str:
        return f"{self.path}:{self.keys[index]}"

    def read(self, indices: Iterable[int]) -> Iterator[Record]:
        try:
            with self.path.open("rb") as stream:
                for index in indices:
                    fields = {}
                    for name, (kind, member) in self.members[index].items():
                        stream.seek(member.offset)
                        fields[name] = kind, stream.read(member.size)
                    yield Record(self.name(index), fields)
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror}") from error


def open_tar(
    path: Path,
    spec: str,
    inputs: Sequence[TensorSpec],
    axes: BatchAxes,
    *,
    preprocessing: Preprocessing | None = None,
    samples: int | None = None,
) -> RecordSource:
    """The samples of a WebDataset tar file, the first `samples` of them.

    Raises `DataError` where it is damaged, compressed, or a sample lacks an input.
    """
    found, labels = _index(path)
    keys = list(found)[:samples]
    if not keys:
        raise DataError(f"{spec} holds no samples", hint="expected members such as 0001.jpg")
    members = tuple(_inputs_of(key, found[key], inputs, path) for key in keys)
    if any(kind == "image" for each in members for kind, _ in each.values()):
        from onnxq.data.image_input import for_input, picture_axes, require_one_input

        require_one_input(inputs, spec)
        preprocessing = for_input(preprocessing, inputs[0], spec)
        axes = picture_axes(preprocessing, inputs[0], axes)
    else:
        preprocessing = None
    reader = TarReader(path, tuple(keys), members)
    return RecordSource(
        spec, tuple(inputs), axes, len(keys),
        as_labels([labels.get(key) for key in keys], spec), reader, preprocessing,
    )  # fmt: skip


def _index(path: Path) -> tuple[dict[str, dict[str, Member]], dict[str, int]]:
    """For each sample its members by extension, and the labels; only headers are read."""
    found: dict[str, dict[str, Member]] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                folder, _, base = member.name.rpartition("/")
                stem, dot, extension = base.partition(".")
                if not member.isfile() or not stem or not dot:
                    continue
                key = f"{folder}/{stem}" if folder else stem
                extension = "." + extension.lower()
                if extension == LABEL:
                    content = archive.extractfile(member)
                    labels[key] = _label(b"" if content is None else content.read(64), key, path)
                else:
                    place = Member(member.offset_data, member.size)
                    found.setdefault(key, {})[extension] = place
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
        # The last two where a header holds an offset that no file has.
        raise DataError(
            f"cannot read {path}: {error}", hint="expected an uncompressed, complete tar file"
        ) from error
    return found, labels


def _label(content: bytes, key: str, path: Path) -> int:
    text = content.decode("ascii", "replace").strip()
    if not text.isdecimal():
        raise DataError(f"{path}:{key}{LABEL} holds {text[:20]!r}, a class index expected")
    return int(text)


def _inputs_of(
    key: str, members: dict[str, Member], inputs: Sequence[TensorSpec], path: Path
) -> dict[str, tuple[str, Member]]:
    result: dict[str, tuple[str, Member]] = {}
    for spec in inputs:
        wanted = {f".{spec.name.lower()}.npy"}
        if len(inputs) == 1:
            wanted |= {".npy", *EXTENSIONS}
        match = next((each for each in members if each in wanted), None)
        if match is None:
            raise DataError(
                f"{path}:{key} has no member for input {spec.name!r}, only {', '.join(members)}",
                hint=f"expected {key}.{spec.name}.npy"
                + (", .npy or an image" if len(inputs) == 1 else ""),
            )
        kind = "npy" if match.endswith(".npy") else "image"
        result[spec.name] = kind, members[match]
    return result
