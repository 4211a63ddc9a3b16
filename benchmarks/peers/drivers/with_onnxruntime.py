"""Quantize with onnxruntime's `quantize_static`, after its `quant_pre_process` as it advises.

Settings: method (MinMax, Percentile, Entropy), per_channel.
"""

import tempfile
from pathlib import Path

from contract import job
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

BATCH = 10


class Reader(CalibrationDataReader):
    def __init__(self, feeds):
        self.feeds = iter(feeds)

    def get_next(self):
        return next(self.feeds, None)


task = job()
# Its histograms cannot stack batches of two sizes.
count = len(next(iter(task.arrays.values())))
size = BATCH if count % BATCH == 0 else 1
with tempfile.TemporaryDirectory() as folder:
    prepared = str(Path(folder) / "prepared.onnx")
    # Its symbolic shapes are for transformers, and fail on a Constant given as `value_ints`.
    quant_pre_process(task.model, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        task.output,
        Reader(task.feeds(size)),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=task.settings["per_channel"],
        calibrate_method=CalibrationMethod[task.settings["method"]],
    )
