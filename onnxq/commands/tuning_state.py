"""What `tune` knows so far, in a folder beside its output: a run that was stopped goes on there.

A trial is kept under a digest of all that has a say in it: the model, the contents of the files
that were named, the options, onnxq and ONNX Runtime, and the machine, which it was timed on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import re
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnxruntime

import onnxq
from onnxq.calibration import files as calibration_files
from onnxq.calibration.statistics import Calibration
from onnxq.commands.attempt import Metric, Outcome, OutputScore
from onnxq.data.source import DataSource
from onnxq.errors import OnnxqError, OutputError
from onnxq.model import files as model_files
from onnxq.model.model import Model
from onnxq.options.tune import TuneOptions
from onnxq.quantization.account import Speed
from onnxq.records import to_plain, write_bytes

Value = TypeVar("Value")

DIGITS = 20
"""Hexadecimal digits of the names of files."""

OURS = re.compile(
    rf"\.?[0-9a-f]{{{DIGITS}}}\.(json|calib|onnx)(\.[0-9a-f]+)*(\.data|\.tmp(\.\w+)?)*"
)
"""The files of a state, and what a killed run has left of them; others are left alone."""

BEYOND = frozenset({"max-drop", "budget", "dask", "scheme"})
"""Options that have no say in what one trial comes to."""

READ = (
    "data", "validate_data", "labels", "classes", "tokenizer", "preprocess", "target", "metrics",
    "libraries",
)  # fmt: skip
"""Options that name files, or hold code, whose content has a say in it."""

ROOM = 1 << 30
"""Bytes that models take which are kept in memory for what is made from them."""

COPIES = 3
"""Times the size of the model that one of them takes: prepared, quantized, on the way."""

FEW = 16
"""Values that are kept of each kind at most."""


def digest(value: object) -> str:
    text = json.dumps(to_plain(value), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def key_of(
    model: Model, options: TuneOptions, sources: Mapping[str, tuple[object, DataSource]]
) -> dict[str, Any]:
    """All that has a say in what candidates come to, but for the candidates themselves.

    Args:
        sources: "data" and "validate_data" → what was given, and that opened.
    """
    contents: dict[str, Any] = {}
    skipped = _own_files(options.state)
    for name in READ:
        value = getattr(options, name)
        for number, each in enumerate(value if isinstance(value, tuple) else (value,)):
            found = _content(each, skipped)
            if found:
                contents[f"{name} {number}"] = found
    for name, (given, source) in sources.items():
        if not (isinstance(given, str) and Path(given).exists()):
            contents[name] = [source.fingerprint, _labels(source)]
    return {
        "onnxq": onnxq.__version__,
        "onnxruntime": onnxruntime.__version__,
        "machine": [platform.node(), platform.machine()],
        "model": model.fingerprint,
        "options": {key: each for key, each in options.plain().items() if key not in BEYOND},
        "contents": contents,
    }


def _own_files(state: Path | None) -> tuple[Path, ...]:
    """What a run writes itself, perhaps into a folder of data."""
    if state is None:
        return ()
    return (state.absolute(), state.absolute().with_name(state.name.removesuffix(".state")))


def _content(value: object, skipped: tuple[Path, ...]) -> str:
    """A digest of the file or folder that a text names, or of what a function is called."""
    if callable(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value)}"
    if not isinstance(value, (str, Path)) or not str(value):
        return ""
    text = str(value)
    with contextlib.suppress(OSError, ValueError):
        # FILE.py:name, FILE.jsonl:field
        for path in (Path(text), Path(text.rpartition(":")[0] or text)):
            if path.is_file():
                return _digest_of([path], path.parent)
            if path.is_dir():
                files = sorted(each for each in path.rglob("*") if each.is_file())
                return _digest_of([each for each in files if not _is_one_of(each, skipped)], path)
    return ""


def _is_one_of(path: Path, skipped: tuple[Path, ...]) -> bool:
    absolute = path.absolute()
    return any(each in (absolute, *absolute.parents) for each in skipped)


def _digest_of(paths: list[Path], folder: Path) -> str:
    found = hashlib.sha256()
    for path in paths:
        found.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                found.update(chunk)
    return found.hexdigest()


def _labels(source: DataSource) -> str:
    """A digest of the labels, which no fingerprint of data tells of."""
    if not source.has_labels:
        return ""
    found = hashlib.sha256()
    for batch in source.batches(64):
        labels = np.asarray(batch.labels)
        found.update(repr(labels.tolist()).encode())
    return found.hexdigest()


class State:
    """What is known so far, in memory and, where there is a folder, on disk.

    It implements `onnxq.commands.kept.Kept`.

    Attributes:
        folder: None where nothing is to be left behind.
        calibrating: seconds that calibrations have taken.
    """

    def __init__(self, folder: Path | None, key: Mapping[str, Any], size: int) -> None:
        """The state of a run.

        Args:
            size: bytes of the float model.
        """
        self.folder = folder
        self._key = key
        self._most = int(np.clip(ROOM // max(COPIES * size, 1), 1, FEW))
        self._calibrations: dict[str, Calibration] = {}
        self._values: defaultdict[str, OrderedDict[str, Any]] = defaultdict(OrderedDict)
        self.calibrating = 0.0

    def name_of(self, settings: Mapping[str, Any]) -> str:
        """What a candidate's files are called."""
        return digest({**self._key, "candidate": settings})

    # --- outcomes

    def outcome(self, name: str) -> Outcome | None:
        """What a candidate came to in an earlier run; None where that is not known."""
        if self.folder is None:
            return None
        try:
            return _read_outcome(json.loads((self.folder / f"{name}.json").read_text("utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep_outcome(self, name: str, outcome: Outcome) -> None:
        if not outcome.passing:
            text = json.dumps(to_plain(outcome), indent=1)
            self._write(f"{name}.json", text.encode())

    # --- models

    def model(self, name: str) -> Model | None:
        """A candidate's model, where it was kept."""
        path = None if self.folder is None else self.folder / f"{name}.onnx"
        if path is None or not path.is_file():
            return None
        try:
            return model_files.read_written(path)
        except OnnxqError:
            return None

    def keep_model(self, name: str, model: Model) -> None:
        """Keep a candidate's model, until `keep_only` names others."""
        if self.folder is not None:
            self._make()
            model_files.save(model, self.folder / f"{name}.onnx")

    def keep_only(self, names: Collection[str]) -> None:
        """Remove the models of all other candidates."""
        for path in [] if self.folder is None else _files(self.folder):
            if ".onnx" in path.name and path.name.lstrip(".")[:DIGITS] not in names:
                path.unlink(missing_ok=True)

    # --- what candidates share

    def calibration(self, form: Model, make: Callable[[], Calibration]) -> Calibration:
        fingerprint = form.fingerprint
        if fingerprint in self._calibrations:
            return self._calibrations[fingerprint]
        name = f"{digest({**self._key, 'form': fingerprint})}.calib"
        found = self._read_calibration(name)
        if found is None:
            since = time.monotonic()
            found = make()
            self.calibrating += time.monotonic() - since
            self._write(name, calibration_files.to_bytes(found))
        self._calibrations[fingerprint] = found
        return found

    def _read_calibration(self, name: str) -> Calibration | None:
        if self.folder is None or not (self.folder / name).is_file():
            return None
        try:
            return calibration_files.load(self.folder / name)
        except OnnxqError:
            return None

    def calibrations(self) -> dict[str, bytes]:
        """All of them as the contents of their files, by the forms of the model."""
        return {form: calibration_files.to_bytes(each) for form, each in self._calibrations.items()}

    def value(self, what: str, of: tuple[Any, ...], make: Callable[[], Value]) -> Value:
        plain = [each.fingerprint if isinstance(each, Model) else each for each in of]
        name, known = digest(plain), self._values[what]
        if name not in known:
            known[name] = make()
            while len(known) > self._most:
                known.popitem(last=False)
        known.move_to_end(name)
        found: Value = known[name]
        return found

    # --- the folder

    def _write(self, name: str, content: bytes) -> None:
        if self.folder is not None:
            self._make()
            write_bytes(self.folder / name, content)

    def _make(self) -> None:
        if self.folder is None:
            return
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot make the folder {self.folder}, for the state of this run: "
                f"{error.strerror}",
                hint="remove what lies there, or write somewhere else with -o",
            ) from None


def remove(folder: Path) -> None:
    """Remove the state of a run, and its folder if nothing else is in it."""
    for path in _files(folder):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _files(folder: Path) -> list[Path]:
    found = list(folder.iterdir()) if folder.is_dir() else []
    return [path for path in found if OURS.fullmatch(path.name)]


def _read_outcome(plain: Mapping[str, Any]) -> Outcome:
    """The outcome that `to_plain` wrote."""
    speed = plain["speed"]
    numbers = {name: float(plain[name]) for name in ("drop", "sqnr", "sqnr_error", "seconds")}
    given = dict(plain) | numbers
    given["speed"] = None if speed is None else Speed(**speed)
    given["outputs"] = tuple(
        OutputScore(each["name"], *(float(each[key]) for key in ("sqnr", "cosine", "equal")))
        for each in plain["outputs"]
    )
    given["metrics"] = {
        name: Metric(
            float(each["value"]), each["unit"],
            {key: float(value) for key, value in each["values"].items()},
        )
        for name, each in plain["metrics"].items()
    }  # fmt: skip
    return Outcome(**given)
