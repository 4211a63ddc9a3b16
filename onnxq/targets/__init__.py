"""Targets as data: what a machine computes on quantized numbers, and where it wants Q/DQ."""

from onnxq.targets.read import SHIPPED, read_target, shipped_targets, target_named
from onnxq.targets.target import Placement, Shapes, Target, TargetScheme

__all__ = [
    "SHIPPED",
    "Placement",
    "Shapes",
    "Target",
    "TargetScheme",
    "read_target",
    "shipped_targets",
    "target_named",
]
