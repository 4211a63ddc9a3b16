"""Top-1 and SQNR of one int8 model of images, as JSON; the same for every tool.

    python evaluate.py FLOAT.onnx INT8.onnx TEST.npz REFERENCE.npy

ONNX Runtime on the CPU with all graph optimizations off: Q/DQ pairs are then computed as written,
in float, and no integer kernel of one machine decides. REFERENCE.npy keeps the float model's
logits between calls.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

BATCH = 10
"""Small, so that the tensors between unfused nodes stay in cache."""


def logits(model: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    types = {
        put.name: np.float16 if put.type == "tensor(float16)" else None
        for put in session.get_inputs()
    }
    count = len(next(iter(arrays.values())))
    found = []
    for start in range(0, count, BATCH):
        feeds = {
            name: arrays[name][start : start + BATCH].astype(type_ or arrays[name].dtype)
            for name, type_ in types.items()
        }
        found.append(session.run(None, feeds)[0].astype(np.float64))
    return np.concatenate(found).reshape(count, -1)


def main() -> None:
    exact_model, model, test, reference = sys.argv[1:]
    with np.load(test, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    labels = arrays.pop("labels", None)
    if not Path(reference).is_file():
        np.save(reference, logits(exact_model, arrays))
    exact, got = np.load(reference), logits(model, arrays)
    noise = np.square(exact - got).sum()
    sqnr = float(10 * np.log10(np.square(exact).sum() / noise)) if noise else None
    values, floats = {"SQNR dB": sqnr}, {}
    if labels is not None:
        top1 = [100 * float(np.mean(each.argmax(1) == labels)) for each in (exact, got)]
        floats, values = {"top-1 %": top1[0]}, {"top-1 %": top1[1], **values}
    print(json.dumps({"values": values, "float_values": floats}))


if __name__ == "__main__":
    main()
