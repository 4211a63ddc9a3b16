"""Statistics that are worked out when they are asked for."""

import numpy as np
import pytest
from onnxq.calibration.accumulate import Accumulator
from onnxq.calibration.derived import Derived


def statistics(*values):
    accumulator = Accumulator(None)
    accumulator.add(np.float32(values))
    return accumulator.finish()


def test_each_is_worked_out_once_and_only_when_it_is_read():
    asked = []

    def derive(name):
        asked.append(name)
        return statistics(len(name))

    found = Derived(["bbb", "a", "bbb"], derive)
    assert (list(found), len(found)) == (["bbb", "a"], 2)
    assert "a" in found
    assert "c" not in found
    assert asked == []
    assert found["bbb"].high == 3
    assert found["bbb"] is found["bbb"]
    assert asked == ["bbb"]


def test_a_tensor_that_is_not_there_is_not_derived():
    found = Derived(["a"], lambda name: pytest.fail(f"asked for {name}"))
    with pytest.raises(KeyError, match="b"):
        found["b"]
    assert found.get("b") is None
