"""What every driver is given: MODEL CALIBRATION OUTPUT.onnx SETTINGS, the last as JSON.

CALIBRATION is an .npz of samples of one size, or a folder of .npz files of one sample each. A
driver runs inside its tool's own virtual environment, so it imports nothing but the tool, numpy and
onnx. It writes the quantized model to OUTPUT and exits with 0; on any error it exits with another
code, and the last line on stderr, that of the traceback, is the reason shown in the table.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Job:
    """One run of one tool.

    Attributes:
        model: path of the float model.
        parts: calibration samples by model input; axis 0 counts them. One part if all have one
            size, else one for each sample.
        output: where the quantized model goes.
        settings: the mode, as `tools.py` states it.
    """

    model: str
    parts: list[dict[str, np.ndarray]]
    output: str
    settings: dict[str, Any]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All samples at once, for a tool that takes them so."""
        if len(self.parts) > 1:
            raise ValueError("it takes samples of one size only")
        return self.parts[0]

    def feeds(self, size: int = 1) -> list[dict[str, np.ndarray]]:
        """The samples in batches of `size` at most."""
        return [
            {name: array[start : start + size] for name, array in part.items()}
            for part in self.parts
            for start in range(0, len(next(iter(part.values()))), size)
        ]


def job() -> Job:
    model, calibration, output, settings = sys.argv[1:]
    path = Path(calibration)
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    return Job(model, [_read(file) for file in files], output, json.loads(settings))


def _read(file: Path) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files if name != "labels"}
