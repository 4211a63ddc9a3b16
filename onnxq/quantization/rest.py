"""What stays in float goes to float16, where the values seen leave room for others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibration.statistics import Calibration
from onnxq.data.budget import WHOLE, Batching
from onnxq.errors import UsageError
from onnxq.formats.scheme import Scheme
from onnxq.model.files import infer_shapes
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.narrow import Narrowing, narrow
from onnxq.model.session import run, with_outputs
from onnxq.targets import Target

Feeds = Mapping[str, NDArray[Any]]


def require_float_biases(target: Target, scheme: Scheme) -> None:
    """Raise `UsageError` for a target or scheme to which a float16 remainder is of no use."""
    if scheme.is_dynamic:
        raise UsageError(
            f"--rest fp16 is no use with scheme {scheme}: what is quantized as the model runs is "
            "float32",
            hint="leave --rest at fp32",
        )
    if scheme.bias is not None:
        raise UsageError(
            f"--rest fp16 is no use for target {target.name}: its biases are {scheme.bias}",
            hint="use --target gpu",
        )


def narrow_rest(
    quantized: Model, calibration: Calibration, batches: Sequence[Feeds], batching: Batching = WHOLE
) -> tuple[Model, Narrowing]:
    """The quantized model with its float remainder in float16; see `onnxq.model.narrow`.

    Args:
        calibration: of the float model; tensors of its names hold the same values, but for
            quantization errors.
        batches: samples on which all other tensors are measured.
        batching: how they run.
    """
    model = infer_shapes(quantized)
    largest = _largest_magnitudes(model, batches, batching)
    for name, tensor in calibration.tensors.items():
        if name in largest:
            largest[name] = max(largest[name], abs(tensor.low), abs(tensor.high))
    return narrow(model, largest)


def _largest_magnitudes(
    model: Model, batches: Sequence[Feeds], batching: Batching
) -> dict[str, float]:
    """Float activation → the largest magnitude it takes."""
    graph = Graph(model)
    names = graph.activations
    runtime = replace(batching.base, lean=batching.large)
    session = runtime.open(with_outputs(model, names), optimize=False)
    largest = dict.fromkeys(names, 0.0)
    for part in (part for batch in batches for part in batching.of(graph).parts(batch)):
        for name, values in zip(names, run(session, names, part), strict=True):
            # NaN is no reason to keep float32, but Inf is: fmax passes over the one only.
            seen = float(np.fmax.reduce(np.abs(values), axis=None, initial=0.0))
            largest[name] = max(largest[name], seen)
    return largest
