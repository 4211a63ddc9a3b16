"""Quantize with onnxruntime. Settings: kind (static, dynamic, weights), and those of the kind.

- static: `quantize_static`, after its `quant_pre_process` as it advises. method (MinMax, …),
  per_channel (from operator set 13 on, the first with an axis: below it writes a file that ONNX
  Runtime refuses), activations (int8, uint8, or uint16 by Q/DQ of its own: `UseQDQContribOps`).
- dynamic: `quantize_dynamic`, which takes no data. per_channel.
- weights: MatMulNBits. bits, block.
"""

import tempfile
from pathlib import Path

import onnx
import onnx.version_converter
from contract import job
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

BATCH = 10
PER_CHANNEL = 13
"""Operator set."""

TYPES = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8, "uint16": QuantType.QUInt16}


class Reader(CalibrationDataReader):
    def __init__(self, feeds):
        self.feeds = iter(feeds)

    def get_next(self):
        return next(self.feeds, None)


def static(task, settings):
    # Its histograms cannot stack batches of two sizes.
    counts = {len(next(iter(part.values()))) % BATCH for part in task.parts}
    size = BATCH if counts == {0} else 1
    activations = settings.get("activations", "int8")
    with tempfile.TemporaryDirectory() as folder:
        prepared = str(Path(folder) / "prepared.onnx")
        # Its symbolic shapes are for transformers, and fail on a Constant given as `value_ints`.
        quant_pre_process(raised(task.model, settings, folder), prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            task.output,
            Reader(task.feeds(size)),
            quant_format=QuantFormat.QDQ,
            activation_type=TYPES[activations],
            weight_type=QuantType.QInt8,
            per_channel=settings["per_channel"],
            calibrate_method=CalibrationMethod[settings["method"]],
            # ONNX has no 16-bit Q/DQ below operator set 21.
            extra_options={"UseQDQContribOps": activations == "uint16"},
        )


def raised(path, settings, folder):
    """The model in an operator set that scales for each channel can be written in."""
    model = onnx.load(path)
    (opset,) = (each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    if not settings["per_channel"] or opset >= PER_CHANNEL:
        return path
    path = str(Path(folder) / "raised.onnx")  # a model in memory is not optimized
    onnx.save(onnx.version_converter.convert_version(model, PER_CHANNEL), path)
    return path


def dynamic(task, settings):
    quantize_dynamic(
        task.model, task.output, per_channel=settings["per_channel"], weight_type=QuantType.QInt8
    )


def weights(task, settings):
    # It needs a package that the others do not.
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    made = MatMulNBitsQuantizer(
        onnx.load(task.model), bits=settings["bits"], block_size=settings["block"],
        is_symmetric=True,
    )  # fmt: skip
    made.process()
    made.model.save_model_to_file(task.output)


work = job()
kinds = {"static": static, "dynamic": dynamic, "weights": weights}
kinds[work.settings.get("kind", "static")](work, work.settings)
