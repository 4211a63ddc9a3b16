"""Layers measured a few at a time: the same numbers, whatever the memory."""

import numpy as np
import onnxq
import pytest
from onnxq import api
from onnxq.data.budget import Limits
from onnxq.validation import layers, suffix
from onnxq.validation import workbench as bench
from onnxq.validation.cut import OWN, cut
from onnxq.validation.layers import measure_layers
from onnxq.validation.pairing import pair
from onnxq.validation.suffix import stages_of
from onnxq.validation.windows import Window, join_windows
from onnxq.validation.workbench import open_bench

from support.builder import Builder

RNG = np.random.default_rng(0)


def network():
    """Convolutions of channels that differ much, with a shortcut past three of them and a head."""
    b = Builder(1)
    x = b.clip(b.conv(b.input(3, 9, 9), 8, 3))
    early = x
    for _ in range(3):
        x = b.clip(b.conv(x, 8, 3))
    x = b.op("Add", x, early)
    x = b.op("Concat", b.conv(x, 4, 1), early, axis=1, shape=(12, 9, 9))
    return b.model(b.head(x), b.clip(b.conv(early, 4, 3)))


def images(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3, 9, 9)).astype(np.float32)


@pytest.fixture(scope="module")
def models():
    return network(), onnxq.quantize(network(), images(32))[0]


@pytest.fixture
def short_stages(monkeypatch):
    """So that there is something to share out; how long they are is no matter of memory."""
    monkeypatch.setattr(suffix, "STAGE", 2)


def measured(models, *, probes=12, **limits):
    model, int8 = models
    source = api.as_source(images(24, seed=1), model)
    return measure_layers(model, int8, source, limits=Limits(**limits), probes=probes, first_look=4)


def windows_of(models, memory):
    model, int8 = models
    return open_bench(model, int8, [{"x": images(4)}], limits=Limits(memory=memory)).windows


@pytest.mark.parametrize("small", [0, 1 << 26])
def test_numbers_do_not_depend_on_the_memory(models, short_stages, monkeypatch, small):
    monkeypatch.setattr(bench, "SMALL", small)
    counts = [len(windows_of(models, memory)) for memory in (1, 100_000, 1 << 30)]
    assert counts[0] > 3
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 1
    expected = measured(models)
    assert any(layer.estimated for layer in expected.layers) or len(expected.layers) <= 8
    assert all(np.isfinite(layer.own) for layer in expected.layers)
    for memory in (1, 100_000):
        # NaN, of causes that do not apply, equals itself in text only.
        assert str(as_text(measured(models, memory=memory))) == str(as_text(expected))


def as_text(report):
    return [report.together, report.sum_of_parts, report.samples, *map(repr, report.layers)]


def test_windows_cover_the_layers_in_order(models, short_stages):
    model, int8 = models
    names = [layer.output for layer in pair(model, int8).layers]
    for memory in (1, 1 << 30):
        assert [name for each in windows_of(models, memory) for name in each.layers] == names


def test_neighbors_join_while_there_is_room():
    def window(name):
        return Window(((name,),), frozenset({name}), frozenset())

    def need(window):
        return len(window.layers)

    found = join_windows([window(name) for name in "abcde"], need, 2)
    assert [each.layers for each in found] == [("a", "b"), ("c", "d"), ("e",)]
    assert len(join_windows([window(name) for name in "abc"], need, 0)) == 3


def test_stages_of_large_tensors_are_short():
    names = [f"t{number}" for number in range(20)]
    assert [len(stage) for stage in stages_of(names, {}, 1)] == [16, 4]
    sizes = dict.fromkeys(names, suffix.LARGE // 3)
    assert {len(stage) for stage in stages_of(names[:18], sizes, 1)} == {3}
    sizes = dict.fromkeys(names, 2 * suffix.LARGE)
    assert {len(stage) for stage in stages_of(names, sizes, 1)} == {1}


def test_a_piece_has_no_more_than_it_needs(models):
    pairing = pair(*models)
    names = [layer.output for layer in pairing.layers]
    part = cut(pairing.quantized, pairing.tensors, {names[1]})
    whole = cut(pairing.quantized, pairing.tensors)
    assert [each.name for each in part.graph.output] == [names[1] + OWN]
    assert {each.name for each in part.graph.input} & set(pairing.tensors) == {names[0]}
    assert len(part.graph.node) < len(whole.graph.node) / 2
    assert len(part.graph.initializer) < len(whole.graph.initializer) / 2


def test_large_samples_are_fewer_probes(models, monkeypatch):
    taken = images(1).nbytes
    monkeypatch.setattr(layers, "MEMORY_FOR_PROBES", 12 * taken)
    assert measured(models, probes=24).probes == 12
    monkeypatch.setattr(layers, "MEMORY_FOR_PROBES", taken)
    assert measured(models, probes=24).probes == layers.FEW
