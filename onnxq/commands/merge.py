"""Merge calibrations of parts of the data."""

from __future__ import annotations

import os
from collections.abc import Iterable

from onnxq.calibration import files
from onnxq.calibration.merge import merge as merge_parts
from onnxq.calibration.statistics import Calibration
from onnxq.commands.inputs import PathLike
from onnxq.errors import DataError, UsageError
from onnxq.options.values import path_of

PART = "a calibration or the path of its file"


def merge(parts: Iterable[Calibration | PathLike]) -> Calibration:
    """Join calibrations, or their files, in any order; see `onnxq.api.merge`."""
    one = isinstance(parts, (str, os.PathLike, Calibration)) or not isinstance(parts, Iterable)
    parts = [] if one else list(parts)
    if not parts:
        raise UsageError("merge needs a list of calibrations or of their files")
    loaded = [
        part if isinstance(part, Calibration) else files.load(path_of(part, "a part", PART))
        for part in parts
    ]
    try:
        return merge_parts(loaded)
    except DataError as error:
        names = ", ".join(str(part) for part in parts if not isinstance(part, Calibration))
        message = f"{names}: {error.message}" if names else error.message
        raise DataError(message, hint=error.hint) from None
