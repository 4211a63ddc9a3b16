"""A result never takes the place of a file that the command line names, or of what is no file."""

import os
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest

from support.cli_case import run

LONG = "a" * 300


def kept(case, path, *args, flag="-o"):
    before = path.read_bytes()
    done = run(*args, flag, path)
    assert (done.code, path.read_bytes() == before) == (2, True), done.err
    assert f"cannot write {path}: it is an input (name another file)" in done.err
    assert not [name for name in case.files() if ".tmp" in name]


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_the_recipe(case):
    recipe = written(case.folder / "r.toml", f'[quantize]\ndata = "{case.data}"\n')
    kept(case, recipe, "quantize", case.model, "--recipe", recipe)


def test_a_function_of_data(case):
    code = "import numpy as np\ndef f():\n    yield {'x': np.zeros((3, 8, 8), np.float32)}\n"
    function = written(case.folder / "f.py", code)
    kept(case, function, "calibrate", case.model, "--data", f"{function}:f")


def test_a_target_of_the_users(case):
    shipped = files("onnxq.targets") / "cpu.toml"
    target = written(case.folder / "mine.toml", shipped.read_text(encoding="utf-8"))
    kept(case, target, "quantize", case.model, "--data", case.data, "--target", target)


def test_labels_and_metrics(quantized):
    case = quantized
    labels = written(case.folder / "labels.txt", "1\n" * 24)
    told = ("validate", case.model, case.out, "--data", case.data, "--max-drop", "1")
    kept(case, labels, *told, "--labels", labels, flag="--junit")
    metric = written(case.folder / "m.py", "def f(y, _):\n    return y[:, 0]\n")
    kept(case, metric, *told, "--metric", f"{metric}:f", flag="--junit")


def test_weights_that_lie_beside_the_model(case):
    path = case.folder / "split.onnx"
    onnx.save(onnx.load(case.model), path, save_as_external_data=True, location="w.bin",
              size_threshold=0)  # fmt: skip
    kept(case, case.folder / "w.bin", "calibrate", path, "--data", case.data)


def test_a_sample_of_a_folder(quantized):
    case = quantized
    feeds = case.folder / "feeds"
    feeds.mkdir()
    np.savez(feeds / "0.npz", x=np.zeros((1, 3, 8, 8), np.float32))
    kept(case, feeds / "0.npz", "emulate", case.out, "--data", feeds)
    assert run("emulate", case.out, "--data", feeds, "-o", case.folder / "y.npz").code == 0
    again = shutil.copy(case.out, feeds / "model.onnx")
    done = run("quantize", case.model, "--data", feeds, "-o", again)  # none of its samples
    assert done.code == 0, done.err


@pytest.mark.parametrize("command", ["calibrate", "quantize"])
def test_a_pipe_stays_one(case, command):
    pipe = case.folder / "pipe"
    os.mkfifo(pipe)
    done = run(command, case.model, "--data", case.data, "-o", pipe)
    assert (done.code, pipe.is_fifo()) == (2, True)
    assert f"cannot write {pipe}: it is no regular file (name a file)" in done.err


@pytest.mark.parametrize(
    "args",
    [
        ("calibrate", "MODEL", "--data", "DATA", "-o", LONG),
        ("quantize", "MODEL", "--data", "DATA", "-o", LONG),
        ("validate", "MODEL", "--data", "DATA", "--metric", "top1", "--labels", LONG),
        ("validate", "MODEL", "--data", "DATA", "--metric", f"{LONG}.py:f"),
        ("validate", "MODEL", "MODEL", "--data", "DATA", "--junit", LONG),
        ("calibrate", "MODEL", "--data", f"{LONG}.txt", "--tokenizer", "t.json"),
        ("calibrate", "MODEL", "--data", "DATA", "--custom-op-library", LONG),
    ],
)
def test_a_name_that_no_file_can_have_is_no_bug(case, args):
    given = {"MODEL": case.model, "DATA": case.data}
    done = run(*(given.get(each, each) for each in args))
    assert done.code == 2, done.err
    assert "File name too long" in done.err
    assert "bug" not in done.err


def test_paths_are_told_apart_from_other_words(case):
    here = Path.cwd()
    os.chdir(case.folder)
    try:
        Path("resize=8x8").mkdir()
        done = run("calibrate", case.model, "--data", case.images, "--preprocess", "resize=8x8",
                   "-o", "c.calib")  # fmt: skip
    finally:
        os.chdir(here)
    assert done.code == 0, done.err
