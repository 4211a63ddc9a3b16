"""How scales pass a saturating Clip: what is tied, how far the others may grow, by hand."""

import math

import numpy as np
import pytest
from onnxq.equalization.classes import find_classes
from onnxq.equalization.clips import ClipRecord, choose_variables
from onnxq.equalization.intervals import Interval
from onnxq.model.graph import Graph

from support.builder import Builder

LOG2 = math.log(2)


def classes(low=0.0, high=6.0, *, twice=False):
    """Four channels between two convolutions, limited; `twice` by a second Clip behind an Add."""
    b = Builder()
    x = b.clip(b.conv(b.input(3, 4, 4), 4), low, high, name="clip")
    if twice:
        x = b.clip(b.op("Add", x, b.conv(x, 4)), low, high, name="other")
    return find_classes(Graph(b.model(b.conv(x, 2))))


def extremes(high, low=0.0, name="clip"):
    high = np.asarray(high, np.float64)
    return {name: Interval(np.broadcast_to(np.float64(low), high.shape), high)}


def roots(found, name="clip"):
    return found.patterns[name].ravel().tolist()


@pytest.mark.parametrize(("mode", "record"), [("tie", "tie"), ("proven", "proven tie"), ("relu", "tie")])  # fmt: skip
def test_what_saturates_is_pinned_and_the_others_grow_up_to_the_bound(mode, record):
    found = classes()
    a, saturated, c, beyond = roots(found)
    made = choose_variables(found, extremes([3, 6, 1.5, 7]), mode)
    assert made.clips == (ClipRecord("clip", record, 4, 2),)
    assert {saturated, beyond}.isdisjoint(made.of)
    assert made.limits == pytest.approx({a: LOG2, c: 2 * LOG2})
    assert made.sites == ()
    assert sorted(made.of.values()) == list(range(1, len(made.of) + 1))
    assert set(made.of) == set(found.free.tolist()) - {saturated, beyond}


def test_per_channel_moves_the_bound_and_counts_what_saturates():
    found = classes()
    made = choose_variables(found, extremes([3, 6, 1.5, 7]), "per-channel")
    assert made.clips == (ClipRecord("clip", "per-channel", 4, 2),)
    assert set(made.of) == set(found.free.tolist())
    assert (made.limits, made.sites) == ({}, found.clips)
    assert choose_variables(found, {}, "per-channel").clips[0].saturating == -1


def test_a_clip_of_which_nothing_is_known_keeps_one_scale():
    found = classes()
    for known in ({}, extremes([1, 2])):
        made = choose_variables(found, known, "tie")
        assert made.clips == (ClipRecord("clip", "tie", 4, -1),)
        assert not set(roots(found)) & set(made.of)


def test_one_extreme_stands_for_all_channels():
    found = classes()
    made = choose_variables(found, extremes([3]), "tie")
    assert made.limits == pytest.approx(dict.fromkeys(roots(found), LOG2))


def test_a_bound_that_nothing_reaches_is_dropped():
    found = classes()
    made = choose_variables(found, extremes([3, 5, 1, 0]), "relu")
    assert made.clips == (ClipRecord("clip", "relu", 4, 0),)
    assert [site.bounds for site in made.sites] == [(0, math.inf)]
    assert made.limits == {}


def test_a_channel_that_is_always_zero_has_all_the_room_there_is():
    found = classes()
    made = choose_variables(found, extremes([0, 3, 3, 3]), "tie")
    assert made.limits[roots(found)[0]] > 60 * LOG2


def test_a_lower_bound_below_zero_counts_too():
    found = classes(-2, 6)
    made = choose_variables(found, extremes([3, 3, 1, 1], [-0.5, -1.5, -2, 0]), "relu")
    a, b, saturated, d = roots(found)
    assert made.clips == (ClipRecord("clip", "tie", 4, 1),)
    assert made.limits == pytest.approx({a: LOG2, b: math.log(4 / 3), d: math.log(6)})
    assert saturated not in made.of


def test_an_interval_without_zero_lets_nothing_grow():
    found = classes(1, 6)
    made = choose_variables(found, extremes([3, 3, 3, 3], 1), "tie")
    assert made.clips[0].saturating == 4
    assert not set(roots(found)) & set(made.of)


def test_of_two_clips_of_one_class_the_tighter_limit_holds():
    found = classes(twice=True)
    assert roots(found) == roots(found, "other")
    known = extremes([3, 3, 3, 6]) | extremes([1.5, 4, 6, 1], name="other")
    made = choose_variables(found, known, "tie")
    a, b, c, d = roots(found)
    assert made.limits == pytest.approx({a: LOG2, b: math.log(1.5)})
    assert {c, d}.isdisjoint(made.of)
