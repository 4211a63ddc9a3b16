"""Targets as data: what a machine computes on quantized numbers, and where it wants Q/DQ."""

from onnxq.targets.read import SHIPPED, read_target, shipped_targets, target_named
from onnxq.targets.target import Placement, Target, TargetScheme

__all__ = [
    "SHIPPED",
    "Placement",
    "Target",
    "TargetScheme",
    "read_target",
    "shipped_targets",
    "target_named",
]
