"""Quantize with AIMET's ONNX path.

Settings: per_channel; activations (int8, int16); equalize, seq_mse, adaround (iterations).

AIMET keeps a float model with separate encodings; its own `to_onnx_qdq` makes them Q/DQ nodes.
"""

import aimet_onnx
import onnx
from aimet_onnx.batch_norm_fold import fold_all_batch_norms_to_weight
from aimet_onnx.cross_layer_equalization import equalize_model
from contract import job

BATCH = 10

task = job()
settings = task.settings
model = onnx.load(task.model)
if settings.get("equalize"):
    equalize_model(model)  # in place; folds batch norms, turns ReLU6 into ReLU
else:
    fold_all_batch_norms_to_weight(model)  # the first step of its documented workflow
name = "default_config_per_channel.json" if settings["per_channel"] else "default_config.json"
activations = settings.get("activations", "int8")
sim = aimet_onnx.QuantizationSimModel(model, activation_type=activations, config_file=name)
feeds = task.feeds(BATCH)
if settings.get("seq_mse"):
    aimet_onnx.apply_seq_mse(sim, feeds)
if settings.get("adaround"):
    aimet_onnx.apply_adaround(sim, feeds, num_iterations=settings["adaround"])
sim.compute_encodings(feeds)
onnx.save(sim.to_onnx_qdq(prequantize_constants=True), task.output)
