"""Gradients of a model's outputs, carried backwards by an ONNX graph that ONNX Runtime runs.

`backward_model` writes such a graph; `measure_costs` says with it what errors of each tensor cost
at the outputs, `power_by_position` where in a layer they cost most.
"""

from onnxq.gradients.graph import BackwardModel, backward_model
from onnxq.gradients.leaves import Leaf, Leaves, find_leaves
from onnxq.gradients.measure import bytes_in_sample, measure_costs
from onnxq.gradients.positions import power_by_position
from onnxq.gradients.signs import drawn_signs, generator_of

__all__ = [
    "BackwardModel", "Leaf", "Leaves", "backward_model", "bytes_in_sample", "drawn_signs",
    "find_leaves", "generator_of", "measure_costs", "power_by_position",
]  # fmt: skip
