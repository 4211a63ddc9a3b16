"""Run a model in the ONNX Runtime of this Python, which needs nothing else of onnxq's.

    python in_onnxruntime.py MODEL REQUEST.json

`tests/runtimes/web.mjs` has the contract; besides, "optimized" of the request is a file for the
graph that really runs.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

WARM = 10


def session(path, optimized=""):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if optimized:  # the memory layout's optimizations rename nodes
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = optimized
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def arrays(feed):
    return {
        name: np.fromfile(each["file"], each["type"]).reshape(each["shape"])
        for name, each in feed.items()
    }


def spent(each, feed):
    before = time.process_time()
    each.run(None, feed)
    return time.process_time() - before


def main():
    model, request = sys.argv[1:]
    asked = json.loads(Path(request).read_text())
    opened = session(model)
    feeds = [arrays(feed) for feed in asked["feeds"]]
    names = [each.name for each in opened.get_outputs()]
    outputs = []
    for number, feed in enumerate(feeds):
        files = {}
        for place, values in enumerate(opened.run(None, feed)):
            files[names[place]] = f"{request}.{number}.{place}.bin"
            np.ascontiguousarray(values).tofile(files[names[place]])
        outputs.append(files)
    ratios = []
    if asked.get("runs"):
        beside = session(asked["beside"])
        for run in range(-WARM, asked["runs"]):
            second, first = (spent(each, feeds[0]) for each in (opened, beside))
            if run >= 0:
                ratios.append(second / first)
    if asked.get("optimized"):
        session(model, asked["optimized"])
    print(json.dumps({"outputs": outputs, "ratios": ratios, "version": ort.__version__}))


main()
