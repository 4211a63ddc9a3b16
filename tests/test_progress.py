"""Who may listen to the progress of long work."""

import functools
import io

import numpy as np
import onnxq
import pytest
import tqdm
from onnxq.errors import UsageError
from onnxq.progress import SILENT, as_progress

from support.testdata import uneven

X = np.random.default_rng(0).standard_normal((16, 3, 8, 8)).astype(np.float32)


def test_nobody_listens_by_default():
    for nobody in (None, False):
        assert as_progress(nobody) is SILENT
    assert as_progress(SILENT) is SILENT


def test_a_function_is_told_how_far_work_is():
    heard = []
    onnxq.calibrate(uneven(), X, progress=lambda *told: heard.append(told))
    assert heard
    label, done, total = heard[-1]
    assert label
    assert done == total == 16


def test_bars_of_tqdm():
    stream = io.StringIO()
    bar = functools.partial(tqdm.tqdm, file=stream, mininterval=0)
    onnxq.calibrate(uneven(), X, progress=bar)
    assert "16/16" in stream.getvalue()


def test_true_is_tqdm(capsys):
    onnxq.calibrate(uneven(), X, progress=True)
    assert "16/16" in capsys.readouterr().err
    assert as_progress(tqdm.tqdm).bar is tqdm.tqdm


def test_true_needs_tqdm(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tqdm.auto", None)
    with pytest.raises(UsageError, match=r"needs the package tqdm \(pip install tqdm"):
        as_progress(True)


@pytest.mark.parametrize("wrong", [3, "yes", []])
def test_what_cannot_listen_is_refused_before_work(wrong):
    with pytest.raises(UsageError, match=r"progress must be True, tqdm, a function"):
        onnxq.calibrate("nowhere.onnx", X, progress=wrong)
