"""What every driver is given: MODEL CALIBRATION.npz OUTPUT.onnx SETTINGS, the last as JSON.

A driver runs inside its tool's own virtual environment, so it imports nothing but the tool, numpy
and onnx. It writes the int8 model to OUTPUT and exits with 0; on any error it exits with another
code, and the last line on stderr, that of the traceback, is the reason shown in the table.
"""

import json
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Job:
    """One run of one tool.

    Attributes:
        model: path of the float model.
        arrays: for each model input all calibration samples; axis 0 counts them.
        output: where the int8 model goes.
        settings: the mode, as `tools.py` states it.
    """

    model: str
    arrays: dict[str, np.ndarray]
    output: str
    settings: dict[str, Any]

    def feeds(self, size: int = 1) -> list[dict[str, np.ndarray]]:
        """The samples in batches of `size`."""
        count = len(next(iter(self.arrays.values())))
        return [
            {name: array[start : start + size] for name, array in self.arrays.items()}
            for start in range(0, count, size)
        ]


def job() -> Job:
    model, calibration, output, settings = sys.argv[1:]
    with np.load(calibration, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files if name != "labels"}
    return Job(model, arrays, output, json.loads(settings))
