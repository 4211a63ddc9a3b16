"""How close a model's outputs are to another's: each output by itself, and the parts of it.

An output may hold things of several sizes, such as boxes in pixels beside scores in 0…1; one ratio
over all of it tells of the largest only. So the slices along one of its axes are put in order of
their rms and cut into groups where neighbors differ `groups.GAP` times (`groups.cut_groups`), and
each group has numbers of its own. Axis and groups follow from the reference alone, and from sums
that add over batches: memory does not grow with the number of samples.
"""

from onnxq.closeness.parts import (
    OutputCloseness,
    Part,
    closeness,
    decibels,
    worst,
    worst_sqnr,
)
from onnxq.closeness.sums import Sums, add_sums, as_array, is_float, is_float_type, sums_of

__all__ = [
    "OutputCloseness",
    "Part",
    "Sums",
    "add_sums",
    "as_array",
    "closeness",
    "decibels",
    "is_float",
    "is_float_type",
    "sums_of",
    "worst",
    "worst_sqnr",
]
