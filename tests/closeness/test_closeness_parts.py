"""What the sums say: decibels, the worst part, what decides nothing."""

import math

import numpy as np
import pytest
from onnxq.closeness.groups import axes_of_positions
from onnxq.closeness.parts import OutputCloseness, Part, closeness, decibels, worst, worst_sqnr
from onnxq.closeness.sums import sums_of


def part(sqnr, *, name="y", axis=None, slices=()):
    return Part(name, axis, slices, 1.0, sqnr, 1.0)


def output(sqnr, *groups, is_float=True):
    return OutputCloseness("y", is_float, part(sqnr), tuple(map(part, groups)), 0.0, 100.0, 0.0)


@pytest.mark.parametrize(
    ("signal", "noise", "wanted"),
    [
        (1, 1, 0),
        (100, 1, 20),
        (1, 1000, -30),
        (5, 0, math.inf),
        (0, 0, math.inf),
        (0, 1, -math.inf),
        (1, math.inf, -math.inf),
        # Their ratio alone would be infinite.
        (1e300, 1e-300, 6000),
    ],
)
def test_decibels(signal, noise, wanted):
    assert decibels(signal, noise) == pytest.approx(wanted)


def test_the_worst_is_the_smallest_and_one_without_a_value_comes_first():
    assert worst([output(30, 20, 10), output(15)], lambda p: p.sqnr).sqnr == 10
    assert worst_sqnr([output(30, 20), output(15)]) == 15
    assert math.isnan(worst_sqnr([output(-300), output(math.nan)]))
    assert worst([], lambda p: p.sqnr) is None
    assert math.isnan(worst_sqnr([output(3, is_float=False)]))


def test_a_label_names_the_slices():
    assert part(1).label == "y"
    assert part(1, axis=1, slices=(0, 1, 2, 7)).label == "y (axis 1: 0–2, 7)"


def test_identical_outputs_have_no_error():
    x = np.float32([[1, 2], [3, 4]])
    (found,) = closeness(sums_of({"y": x}, {"y": x}, 2))
    assert (found.whole.sqnr, found.whole.cosine) == (math.inf, 1)
    assert (found.largest_error, found.equal, found.other_shape) == (0, 100, 0)
    assert found.whole.rms == pytest.approx(math.sqrt(30 / 4))
    assert found.groups == ()


def test_a_cosine_is_the_mean_over_samples_and_groups_have_that_of_all_their_values():
    x = np.float32([[3, 4, 300, 400], [1, 0, 100, 0]])
    y = np.float32([[4, 3, 300, 400], [1, 0, 0, 100]])
    (found,) = closeness(sums_of({"y": x}, {"y": y}, 2))
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    assert found.whole.cosine == pytest.approx(((x * y).sum(axis=1) / norms).mean())
    quiet = found.groups[-1]
    assert (quiet.slices, quiet.cosine) == ((0, 1), pytest.approx(25 / 26))


def test_nothing_compared_has_no_numbers():
    (found,) = closeness(sums_of({"y": np.ones((3, 2))}, {"y": np.ones((3, 4))}, 3))
    assert found.other_shape == 100
    assert all(map(math.isnan, (found.whole.sqnr, found.whole.cosine, found.equal)))


def test_groups_are_those_of_the_axis_that_differs_most():
    x = np.ones((2, 3, 2), np.float32) * np.float32([[1], [1], [1000]])
    y = x.copy()
    y[:, 0] += 0.1
    (found,) = closeness(sums_of({"y": x}, {"y": y}, 2))
    assert [(each.axis, each.slices) for each in found.groups] == [(1, (2,)), (1, (0, 1))]
    loud, quiet = found.groups
    assert (loud.rms, loud.sqnr) == (pytest.approx(1000), math.inf)
    assert quiet.sqnr == pytest.approx(10 * math.log10(2 / 0.01), abs=1e-4)
    assert found.parts == (found.whole, loud, quiet)


@pytest.mark.parametrize(
    ("sizes", "positions"),
    [
        ((1, 480, 480), (1, 2)),
        ((1, 480, 640), (1, 2)),
        ((19, 32, 48), (1, 2)),
        ((32, 48, 48), (1, 2)),
        ((80, 80, 3), (0, 1)),
        ((8, 46, 46), (1, 2)),  # attention: of each head, tokens by tokens
        ((1, 100, 7), ()),  # rows of detections
        ((1, 2000, 85), ()),
        ((3, 8, 8), ()),
        ((22, 2100), ()),
        ((3, 20, 20, 85), ()),
    ],
)
def test_axes_of_maps(sizes, positions):
    assert axes_of_positions(sizes) == positions


def test_margins_of_a_map_are_no_output_apart():
    """Of the pages that a text detector sees, nothing lies in the margins, nor in their map."""
    rng = np.random.default_rng(0)
    wanted = rng.uniform(0.5, 1, (4, 1, 32, 40))
    wanted[:, :, :3] *= 1e-5
    got = wanted.copy()
    got[:, :, :3] *= 2
    found = closeness({"map": sums_of({"map": wanted}, {"map": got}, 4)["map"]})
    assert worst_sqnr(found) > 60
    # The same numbers, as kinds of a list.
    flat, other = (each.reshape(4, 32, 40) for each in (wanted, got))
    apart = closeness({"list": sums_of({"list": flat}, {"list": other}, 4)["list"]})
    assert worst_sqnr(apart) == pytest.approx(0, abs=0.1)
