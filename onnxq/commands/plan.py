"""What `quantize` would do to a float model, planned without its data."""

from __future__ import annotations

from collections.abc import Sequence

from onnxq.calibration.statistics import Calibration
from onnxq.commands.calibrate import calibrate
from onnxq.commands.inputs import PathLike, as_calibration
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.options.calibrate import CalibrateOptions
from onnxq.progress import Progress
from onnxq.quantization.plan import QuantizationOptions, QuantizationPlan
from onnxq.quantization.planning import plan_quantization
from onnxq.targets import target_named

RANDOM = 8
"""Samples drawn to plan a float model that comes without a calibration."""

NOTE = f"ranges are those of {RANDOM} random samples"


def plan_of(
    model: Model,
    graph: Graph,
    target: str,
    progress: Progress,
    *,
    calibration: Calibration | PathLike | None = None,
    input_shapes: Sequence[str] = (),
) -> QuantizationPlan:
    """The plan with the defaults of `quantize`.

    Args:
        graph: of the normalized model.
        calibration: its ranges; None for those of random samples.
        input_shapes: of the random samples, see `onnxq.commands.inputs.as_source`.

    Raises:
        ModelError, DataError: the model or the calibration is refused.
    """
    if calibration is None:
        drawn = CalibrateOptions(data=f"random:{RANDOM}", input_shapes=tuple(input_shapes))
        calibration = calibrate(model, drawn, progress)
    ranges = as_calibration(calibration, model)
    return plan_quantization(graph, ranges, target_named(target), QuantizationOptions())
