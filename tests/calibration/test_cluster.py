"""A Dask cluster gives the bytes of one process, also when a worker dies."""

import os
import signal
import time

import numpy as np
import pytest
from onnxq import api
from onnxq.calibration import files
from onnxq.errors import DataError, UsageError

from calibration.test_runs import data, model

distributed = pytest.importorskip("distributed")
# Dask leaves sockets and event loops to the garbage collector.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as made:
        yield made


class Slow:
    """Data that take their time, and say which process reads them."""

    def __init__(self, source, folder):
        self.inner, self.folder = source, folder

    def __getattr__(self, name):
        if name in {"inner", "folder"}:
            raise AttributeError(name)
        return getattr(self.inner, name)

    def batches(self, *args, **kwargs):
        (self.folder / str(os.getpid())).touch()
        time.sleep(0.15)
        return self.inner.batches(*args, **kwargs)


class KillsOne:
    """Progress that kills one of the workers as soon as something is done."""

    def __init__(self, folder):
        self.folder, self.steps, self.killed = folder, [], 0

    def track(self, _label, total):
        self.total = total
        return self

    def __enter__(self):
        return self.advance

    def __exit__(self, *_):
        return None

    def advance(self, steps):
        self.steps.append(steps)
        if not self.killed:
            (self.killed, *_) = (
                int(path.name) for path in self.folder.iterdir() if int(path.name) != os.getpid()
            )
            os.kill(self.killed, signal.SIGKILL)


def test_calibrate_survives_the_death_of_a_worker(cluster, tmp_path):
    expected = files.to_bytes(api.calibrate(model(), data(100)))
    source = Slow(api.as_source(data(100), model()), tmp_path)
    watch = KillsOne(tmp_path)
    found = api.calibrate(model(), source, dask=cluster.scheduler_address, progress=watch)
    assert files.to_bytes(found) == expected
    assert watch.killed
    assert len(watch.steps) > 2
    assert sum(watch.steps) == watch.total == 100
    workers = {int(path.name) for path in tmp_path.iterdir()} - {os.getpid()}
    # Dask's nanny has started a new process in place of the dead one, or the other one went on.
    assert workers - {watch.killed}


def test_validate_survives_it_too(cluster, tmp_path):
    values, labels = data(100), np.arange(100) % 3
    int8, _ = api.quantize(model(), values[:16], rounding="nearest")
    given = api.as_source({"x": values, "labels": labels}, model())
    expected = api.validate(model(), int8, given)
    watch = KillsOne(tmp_path)
    found = api.validate(
        model(), int8, Slow(given, tmp_path), dask=cluster.scheduler_address, progress=watch
    )
    assert watch.killed
    assert found.rows == expected.rows
    assert found.samples == 100


def test_tune_finds_the_same_on_a_cluster(cluster, tmp_path):
    """Trials on the workers: the numbers and the model of one process; the state is kept here."""
    given = {"validate_data": data(16), "target": "openvino", "schemes": ["w8"], "max_drop": 100}
    expected, alone = api.tune(model(), data(16), **given)
    address = cluster.scheduler_address
    found, tuning = api.tune(model(), data(16), **given, dask=address, state=tmp_path / "state")
    assert [row.candidate for row in tuning.rows[:1]] == [alone.rows[0].candidate]
    told = [
        {row.candidate.name: (row.outcome.sqnr, row.outcome.drop, row.outcome.size) for row in each}
        for each in (tuning.rows, alone.rows)
    ]
    assert told[0] == told[1]
    assert found.proto.SerializeToString(deterministic=True) == (
        expected.proto.SerializeToString(deterministic=True)
    )
    again, tuning = api.tune(model(), data(16), **given, state=tmp_path / "state")
    assert all(row.reused for row in tuning.rows)
    assert again.fingerprint == found.fingerprint


class Largest:
    """A metric that only this process knows."""

    def __init__(self):
        self.largest, self.seen = 0.0, []

    def update(self, inputs, outputs, labels, reference):
        self.largest = max(self.largest, float(abs(next(iter(outputs.values()))).max()))
        self.seen += list(labels)

    def compute(self):
        return {"largest": self.largest, "in order": float(self.seen == sorted(self.seen))}


def test_metrics_of_the_users_see_the_batches_in_order(cluster):
    given = api.as_source({"x": data(40), "labels": np.arange(40) // 14}, model())
    metrics = [Largest, "top1"]
    expected = api.validate(model(), [], given, metrics=metrics)
    found = api.validate(model(), [], given, metrics=metrics, dask=cluster.scheduler_address)
    assert found.rows == expected.rows
    assert found.rows[0].details["Largest"]["in order"] == 1


def test_an_error_on_a_worker_is_the_same_error(cluster):
    bad = data()
    bad[41, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match=r"<memory>\[41\]"):
        api.calibrate(model(), bad, dask=cluster.scheduler_address)


def test_one_shard_on_a_cluster(cluster):
    whole = api.calibrate(model(), data(), shard=(2, 3))
    found = api.calibrate(model(), data(), shard=(2, 3), dask=cluster.scheduler_address)
    assert files.to_bytes(found) == files.to_bytes(whole)


def test_a_file_is_read_by_the_workers_and_checked(cluster, tmp_path):
    path = tmp_path / "model.onnx"
    api.save(model(), path)
    loaded = api.load(path)
    found = api.calibrate(loaded, data(), dask=cluster.scheduler_address)
    assert files.to_bytes(found) == files.to_bytes(api.calibrate(loaded, data()))


def test_no_cluster_is_said(monkeypatch):
    monkeypatch.setattr("onnxq.cluster.SECONDS", 0.5)
    with pytest.raises(UsageError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        api.calibrate(model(), data(8), dask="tcp://127.0.0.1:9")
