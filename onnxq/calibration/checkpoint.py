"""The state of an unfinished run, beside its output: a killed run goes on where it stopped."""

from __future__ import annotations

import io
import json
import time
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxq.calibration import files
from onnxq.errors import DataError
from onnxq.records import write_bytes

if TYPE_CHECKING:
    from onnxq.calibration.statistics import Calibration

SECONDS = 30.0
"""Time between two writes of the state, at least; a killed run loses no more than that."""

SHARE = 0.02
"""Share of the time that writing the state may take."""


@dataclass(frozen=True)
class Cursor:
    """How far a run has come.

    Attributes:
        passes: partial passes that are complete.
        spans: spans of its shard that the pass in progress has counted.
        samples: samples in them.
    """

    passes: int = 0
    spans: int = 0
    samples: int = 0


@dataclass
class Checkpoint:
    """Where a run keeps its state, and when it was last written.

    Attributes:
        path: the state file; it lies beside the output and is replaced atomically.
        resume: whether to go on from a state that is there.
        seconds: time between two writes.
    """

    path: Path
    resume: bool = False
    seconds: float = SECONDS
    _due: float = 0.0

    def load(self, key: dict[str, Any]) -> tuple[Cursor, Calibration | None]:
        """The state to go on from; the beginning where there is none.

        Args:
            key: what a run must have in common with the one that wrote the state.

        Raises:
            DataError: the state is damaged, or that of another run.
        """
        self._due = time.monotonic() + self.seconds
        if not self.resume or not self.path.exists():
            return Cursor(), None
        try:
            with zipfile.ZipFile(self.path) as archive:
                header = json.loads(archive.read("cursor.json"))
                content = archive.read("calibration")
            cursor = Cursor(**header["cursor"])
        except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
            raise DataError(
                f"{self.path} is no state of a calibration ({type(error).__name__})",
                hint="remove it, or run without --resume",
            ) from None
        other = [name for name, value in key.items() if header["key"].get(name) != value]
        if other:
            raise DataError(
                f"{self.path} is the state of another run: different {', '.join(other)}",
                hint="remove it, or run without --resume",
            )
        return cursor, files.from_bytes(content, self.path)

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self._due

    def save(self, key: dict[str, Any], cursor: Cursor, calibration: Calibration) -> None:
        started = time.monotonic()
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("cursor.json", json.dumps({"key": key, "cursor": asdict(cursor)}))
            archive.writestr("calibration", files.to_bytes(calibration))
        write_bytes(self.path, buffer.getvalue())
        taken = time.monotonic() - started
        self._due = time.monotonic() + max(self.seconds, taken / SHARE if self.seconds else 0.0)


def state_path(output: Path) -> Path:
    """Where the state of the run that writes `output` lies."""
    return output.with_name(output.name + ".state")
