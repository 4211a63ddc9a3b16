"""SQNR of each float output of a quantized model against the float one's, as JSON.

    python evaluate.py FLOAT.onnx QUANTIZED.onnx FEEDS

ONNX Runtime on the CPU with all graph optimizations off: Q/DQ pairs are computed as written, in
float, and no integer kernel of one machine decides. null is an output without an error, or without
a signal.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort


def session(model: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def sqnr(exact_model: str, model: str, feeds: Path) -> dict[str, float | None]:
    exact, other = session(exact_model), session(model)
    names = [put.name for put in exact.get_outputs() if put.type.startswith("tensor(float")]
    names += [put.name for put in exact.get_outputs() if put.type == "tensor(double)"]
    power = {name: np.zeros(2) for name in names}
    for file in sorted(feeds.glob("*.npz")):
        feed = dict(np.load(file, allow_pickle=False))
        pairs = zip(names, exact.run(names, feed), other.run(names, feed), strict=True)
        for name, wanted, got in pairs:
            wanted_, got_ = wanted.astype(np.float64), got.astype(np.float64)
            finite = np.isfinite(wanted_)
            power[name] += [
                np.square(wanted_[finite]).sum(), np.square((wanted_ - got_)[finite]).sum()
            ]  # fmt: skip
    return {
        name: float(10 * np.log10(signal / noise)) if signal and noise else None
        for name, (signal, noise) in power.items()
    }


if __name__ == "__main__":
    print(json.dumps(sqnr(sys.argv[1], sys.argv[2], Path(sys.argv[3]))))
