"""onnxruntime-web computes what the emulator says, in wasm, in Node."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxq
import pytest
from onnxq.validation.execute import runner

from runtimes.conftest import CLOSE, NAMES

SCRIPT = Path(__file__).parent / "web.mjs"
HOME = Path(os.environ.get("ONNXQ_WEB", "none"))
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(
    NODE is None or not (HOME / "node_modules" / "onnxruntime-web").is_dir(),
    reason="no Node with onnxruntime-web in $ONNXQ_WEB: make runtimes has it",
)


def in_wasm(model, data, folder):
    """The outputs by name, sample by sample."""
    path, request = folder / "model.onnx", folder / "request.json"
    onnxq.save(model, path)
    feeds = []
    for index in range(len(next(iter(data.values())))):
        feed = {}
        for name, values in data.items():
            one = np.ascontiguousarray(values[index : index + 1])
            file = folder / f"{index}.{name}.bin"
            file.write_bytes(one.tobytes())
            feed[name] = {"shape": one.shape, "file": str(file)}
        feeds.append(feed)
    request.write_text(json.dumps({"feeds": feeds}))
    done = subprocess.run(
        [NODE, SCRIPT, HOME, path, request],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    written = json.loads(done.stdout)["outputs"]
    return {name: np.concatenate([np.fromfile(each[name], np.float32) for each in written])
            for name in written[0]}  # fmt: skip


def one_by_one(run, data):
    """The first output for each sample, all of them in a row."""
    count = len(next(iter(data.values())))
    feeds = ({name: values[i : i + 1] for name, values in data.items()} for i in range(count))
    return np.concatenate([run(feed)[0].astype(np.float64).ravel() for feed in feeds])


def sqnr(exact, other):
    return 10 * np.log10(np.square(exact).sum() / np.square(exact - other).sum())


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_the_emulators(made, name, tmp_path):
    each = made(name, "web")
    exact, emulated = (
        one_by_one(runner(model, how), each.data)
        for model, how in ((each.model, "cpu"), (each.quantized, "emulate"))
    )
    (output,) = in_wasm(each.quantized, each.data, tmp_path).values()
    assert sqnr(exact, output) > sqnr(exact, emulated) - CLOSE["web"]
