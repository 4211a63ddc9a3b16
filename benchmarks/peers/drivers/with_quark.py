"""Quantize with AMD Quark. Settings: scales (float, power-of-two), calibration, per_channel.

Optional: activations (int8, int16; the latter with what its preset A16W8 sets, and with ONNX
Runtime's Q/DQ, as its own need its library), equalize (cross-layer, with its switch that turns
ReLU6 into ReLU, without which it skips most of MobileNetV2), adaround (with the numbers of its
preset A8W8_ADAROUND).
"""

from contract import job
from onnxruntime.quantization import CalibrationDataReader
from quark.onnx import (
    AdaRoundConfig,
    CLEConfig,
    Int8Spec,
    Int16Spec,
    ModelQuantizer,
    QConfig,
    QLayerConfig,
    XInt8Spec,
)
from quark.onnx.quantization.config.spec import CalibMethod, QuantGranularity


class Reader(CalibrationDataReader):
    def __init__(self, feeds):
        self.feeds = feeds
        self.rewind()

    def get_next(self):
        return next(self.left, None)

    def rewind(self):
        self.left = iter(self.feeds)

    def reset_iter(self):
        self.rewind()

    def __len__(self):
        return len(self.feeds)


task = job()
settings = task.settings
granularity = QuantGranularity.Channel if settings["per_channel"] else QuantGranularity.Tensor
if settings["scales"] == "power-of-two":
    layers = QLayerConfig(activation=XInt8Spec(), weight=XInt8Spec())
else:
    method = CalibMethod[settings["calibration"]]
    activations = {"int8": Int8Spec, "int16": Int16Spec}[settings.get("activations", "int8")]
    layers = QLayerConfig(
        activation=activations(calibration_method=method),
        weight=Int8Spec(calibration_method=method, quant_granularity=granularity),
    )
algorithms = []
if settings.get("equalize"):
    algorithms.append(CLEConfig())
if settings.get("adaround"):
    algorithms.append(AdaRoundConfig(learning_rate=0.1, num_iterations=1000))
options = {"ForceQuantizeNoInputCheck": True, "AlignSlice": False, "FoldRelu": True,
           "AlignConcat": True}  # fmt: skip
if settings.get("equalize"):
    options["ReplaceClip6Relu"] = True
if settings.get("activations") == "int16":
    # With these, aligning Concats ends in an AssertionError on YOLOv8n.
    options |= {"AlignEltwiseQuantType": True, "UseQDQVitisCustomOps": False, "AlignConcat": False}
ModelQuantizer(QConfig(global_config=layers, algo_config=algorithms, **options)).quantize_model(
    task.model, task.output, Reader(task.feeds())
)
