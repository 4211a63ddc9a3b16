"""Random graphs out of the operator table: scales never change a bit of the float outputs.

150 graphs by default; ONNXQ_GRAPHS=20000 in the slow run (about 15 minutes).
"""

import pytest
from hypothesis import assume, given, settings
from onnxq.equalization.equalize import equalize

from support.random_graphs import GRAPHS, random_feeds, random_models
from support.running import runnable, same_kernels, same_outputs, scale_randomly


@settings(max_examples=GRAPHS)
@given(random_models())
def test_random_scales_are_exact(model):
    scaled, _, classes = scale_randomly(model)
    feeds = random_feeds(model)
    assert same_outputs(model, scaled, feeds, optimize=False)
    # A scalar Add that becomes one by channel is fused where it was not before.
    fusion_changes = any(site.node.op_type == "Add" for site in classes.constants)
    if same_kernels(model, scaled) and not fusion_changes:
        assert same_outputs(model, scaled, feeds, optimize=True)


@settings(max_examples=max(GRAPHS // 5, 1))
@given(random_models())
def test_equalize_is_exact(model):
    assume(runnable(model))
    result, record = equalize(model, None, [random_feeds(model)])
    assert record.proof.identical
    assert same_outputs(model, result, random_feeds(model, seed=1), optimize=False)


@settings(max_examples=max(GRAPHS // 8, 1))
@given(random_models())
def test_equalizing_twice_changes_nothing(model):
    assume(runnable(model))
    feeds = random_feeds(model)
    result, _ = equalize(model, None, [feeds])
    again, second = equalize(result, None, [feeds])
    assert not second.changed, f"{second.expected_gain:.3f} dB"
    assert again.proto == result.proto


@pytest.mark.slow
@settings(max_examples=max(GRAPHS // 5, 1))
@given(random_models(max_steps=40))
def test_deep_graphs(model):
    scaled, _, _ = scale_randomly(model)
    assert same_outputs(model, scaled, random_feeds(model), optimize=False)
