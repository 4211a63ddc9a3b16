"""One streaming pass over the data: memory does not grow with the number of samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.accumulate import Accumulator
from onnxq.calibration.statistics import Calibration, Provenance
from onnxq.data.gather import is_held_out
from onnxq.data.source import DataSource
from onnxq.errors import DataError
from onnxq.model.model import Model
from onnxq.model.session import open_session, run, with_outputs
from onnxq.progress import SILENT, Progress


def observe(
    model: Model,
    source: DataSource,
    tensors: Mapping[str, int | None],
    *,
    fingerprint: str,
    batch_size: int = 8,
    shard: tuple[int, int] = (1, 1),
    hold_out: int = 0,
    provider: str = "cpu",
    allow_nonfinite: bool = False,
    progress: Progress = SILENT,
) -> Calibration:
    """Run the model over the data and collect statistics of the tensors named.

    Args:
        model: the normalized model.
        tensors: tensor name → channel axis (None: one histogram for the whole tensor).
        fingerprint: of the model the user named, which the calibration is then tied to.
        shard: (i, n), the i-th of n equal parts of the batches, counted from 1.
        hold_out: leave out every so many-th batch, for the caller to measure on; 0 for none.
        allow_nonfinite: count NaN and infinite activations instead of refusing them.

    Raises:
        DataError: no samples, data that do not fit the model, or NaN or Inf in an activation.
    """
    inputs = {spec.name for spec in model.inputs}
    computed = [name for name in tensors if name not in inputs]
    session = open_session(with_outputs(model, computed), provider=provider)
    accumulators = {name: Accumulator(axis) for name, axis in tensors.items()}
    samples = 0
    total = source.count
    with progress.track("calibrate", total) as advance:
        for number, batch in enumerate(source.batches(batch_size)):
            if number % shard[1] != shard[0] - 1 or is_held_out(number, hold_out):
                advance(len(batch))
                continue
            values = dict(zip(computed, run(session, computed, batch.feeds), strict=True))
            values |= {name: batch.feeds[name] for name in tensors if name in inputs}
            for name, accumulator in accumulators.items():
                if not accumulator.add(values[name]) and not allow_nonfinite:
                    _refuse(source, name, values[name], batch.start)
            samples += len(batch)
            advance(len(batch))
    if samples == 0:
        raise DataError(f"{source.spec}: no samples in shard {shard[0]}/{shard[1]}")
    found = {name: accumulators[name].finish() for name in sorted(accumulators)}
    preprocessing = str(source.preprocessing) if source.preprocessing else ""
    return Calibration(
        Provenance(fingerprint, preprocessing, batch_size), source.fingerprint, source.note,
        samples, (shard,), {name: value for name, value in found.items() if value is not None},
    )  # fmt: skip


def _refuse(source: DataSource, name: str, values: NDArray[Any], start: int) -> None:
    """Name the first sample whose activation is not finite."""
    rows = values.reshape(len(values), -1) if values.ndim else values.reshape(1, 1)
    bad = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
    position = np.flatnonzero(~np.isfinite(rows[bad]))[0]
    value = float(rows[bad][position])
    kind = "NaN" if math.isnan(value) else "Inf"
    raise DataError(
        f"{kind} in activation {name!r} for sample {source.sample_name(start + bad)}",
        hint="mend the model or the data",
    )
