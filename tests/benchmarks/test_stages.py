"""benchmarks/stages.py times functions that are there, each without what it calls."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.fixture
def stages(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("stages")


def test_every_stage_is_a_function(stages):
    for module, path, _ in stages.STAGES:
        found = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
        assert callable(found)


def test_a_stage_counts_without_those_within_it(stages):
    clock = stages.Clock()

    def work():
        return sum(i * i for i in range(300_000))

    inner = clock.timed(work, "inner")
    outer = clock.timed(lambda: [inner(), inner()], stages.WITHIN)
    assert outer()[0] == work()
    assert clock.rows["trials: inner"].calls == 2
    assert clock.rows[stages.WITHIN].cpu < clock.rows["trials: inner"].cpu / 2
    assert "trials: inner" in clock.table()
