"""Metrics of `onnxq validate` of one quantized model, as JSON; the same for every tool.

    python measure.py FLOAT.onnx QUANTIZED.onnx TEST EXECUTION METRIC…

One sample at a time, as a server runs it: what a model computes scales of at run time depends on
what else is in the batch. EXECUTION is one of `onnxq validate`'s: `cpu` is ONNX Runtime with its
integer kernels, those of this machine; `emulate` exact sums, as CPUs with VNNI and NPUs have them.
"""

import json
import math
import sys

import onnxq

exact, model, data, execution, *metrics = sys.argv[1:]
reference, row = onnxq.validate(
    exact, model, data, metrics=metrics, executions=[execution], batch_size=1
).rows  # fmt: skip


def labelled(values):
    """With the units in the names; what is infinite is equal."""
    return {
        f"{name} {row.units[name]}".strip(): None if math.isinf(value) else value
        for name, value in values.items()
        if not math.isnan(value)
    }


floats = {name: v for name, v in labelled(reference.values).items() if v is not None}
print(json.dumps({"values": labelled(row.values), "float_values": floats}))
