"""A target as a value: which schemes it takes, and which operators take them."""

import dataclasses

import pytest
from onnxq.errors import UsageError
from onnxq.formats.table import FORMATS
from onnxq.targets.read import SHIPPED, shipped_targets, target_named
from onnxq.targets.target import Placement, TargetScheme


def test_the_shipped_ones_come_in_order():
    assert tuple(shipped_targets()) == SHIPPED
    assert [each.name for each in shipped_targets().values()] == list(SHIPPED)
    assert target_named("cpu") is target_named("cpu")


def test_the_cpu_is_what_its_file_says():
    cpu = target_named("cpu")
    assert (cpu.placement, cpu.largest_pooling_ratio) == (Placement.ALL, 255.0)
    scheme = cpu.scheme("w8a8")
    assert (scheme.weight.format, scheme.weight.symmetric) == (FORMATS["int8"], True)
    assert (scheme.activation.format, scheme.activation.symmetric) == (FORMATS["uint8"], False)
    assert scheme.bias is FORMATS["int32"]
    assert cpu.scheme("w8").activation is None


def test_four_bits_are_in_blocks_beside_a_wider_scheme():
    cpu = target_named("cpu")
    scheme = cpu.scheme("w4")
    assert (scheme.weight.format, scheme.weight.symmetric) == (FORMATS["uint4"], False)
    assert (scheme.block, cpu.scheme("w4", 64).block, cpu.scheme("w8").block) == (32, 64, 0)
    assert scheme.wider == cpu.scheme("w8")
    assert (cpu.scheme("w8").opset, cpu.scheme("w8", 128).opset, scheme.opset) == (10, 21, 21)


def test_a_scheme_it_does_not_take_is_refused_with_those_it_does():
    cpu = target_named("cpu")
    with pytest.raises(UsageError, match="target cpu does not take scheme w8a16") as caught:
        cpu.scheme("w8a16")
    assert caught.value.hint == f"it takes {', '.join(cpu.schemes)}"


def test_a_scheme_may_be_for_some_operators_only():
    cpu = target_named("cpu")
    some = TargetScheme(cpu.scheme("w8"), frozenset({"MatMul"}))
    target = dataclasses.replace(cpu, schemes={**cpu.schemes, "w8": some})
    assert target.refusal("w8", "MatMul") is None
    assert target.refusal("w8a8", "Conv") is None
    assert str(target.refusal("w8", "Conv")) == "target cpu leaves Conv in float in w8"
