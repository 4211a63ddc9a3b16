"""Which rule writes the gradients of which kind of operator; see `onnxq.model.backward`.

A rule takes a writer, the node, the gradients of its outputs ("" where one has none) and the
positions of the inputs whose gradients are needed; it writes nodes and gives the names of these
gradients. Where it cannot it raises `Unwritable`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from onnxq.gradients import elementwise as e
from onnxq.gradients import moving as m
from onnxq.gradients import products as p
from onnxq.gradients import reducing as r
from onnxq.gradients.writer import Writer
from onnxq.model.backward import Backward
from onnxq.model.graph import Node

Rule = Callable[[Writer, Node, Sequence[str], frozenset[int]], Mapping[int, str]]

RULES: Mapping[Backward, Rule] = MappingProxyType(
    {
        Backward.CONVOLUTION: p.convolution,
        Backward.TRANSPOSED_CONVOLUTION: p.transposed_convolution,
        Backward.GEMM: p.gemm,
        Backward.MATRICES: p.matrices,
        Backward.EINSUM: m.einsum,
        Backward.BATCH_NORM: r.batch_norm,
        Backward.INSTANCE_NORM: r.instance_norm,
        Backward.GROUP_NORM: r.group_norm,
        Backward.LAYER_NORM: r.trailing_norm(center=True),
        Backward.RMS_NORM: r.trailing_norm(center=False),
        Backward.RELU: e.of_input(e.relu),
        Backward.LEAKY_RELU: e.of_input(e.leaky_relu),
        Backward.PRELU: e.of_input(e.prelu),
        Backward.CLIP: e.of_input(e.clip),
        Backward.SIGMOID: e.of_input(e.sigmoid),
        Backward.HARD_SIGMOID: e.of_input(e.hard_sigmoid),
        Backward.HARD_SWISH: e.of_input(e.hard_swish),
        Backward.SOFTMAX: e.of_input(r.softmax),
        Backward.LOG_SOFTMAX: e.of_input(r.log_softmax),
        Backward.TANH: e.of_input(e.tanh),
        Backward.GELU: e.of_input(e.gelu),
        Backward.ELU: e.of_input(e.elu),
        Backward.ERF: e.of_input(e.erf),
        Backward.ABSOLUTE: e.of_input(e.absolute),
        Backward.NEGATIVE: e.of_input(e.negative),
        Backward.SOFTPLUS: e.of_input(e.softplus),
        Backward.MISH: e.of_input(e.mish),
        Backward.EXPONENTIAL: e.of_input(e.exponential),
        Backward.LOGARITHM: e.of_input(e.logarithm),
        Backward.ROOT: e.of_input(e.root),
        Backward.SINE: e.of_input(e.sine),
        Backward.COSINE: e.of_input(e.cosine),
        Backward.SOFTSIGN: e.of_input(e.softsign),
        Backward.RECIPROCAL: e.of_input(e.reciprocal),
        Backward.POWER: e.power,
        Backward.ADD: e.of_operands(e.add),
        Backward.SUBTRACT: e.of_operands(e.subtract),
        Backward.MEAN_OF_OPERANDS: e.of_operands(e.mean_of),
        Backward.EXTREME_OF_OPERANDS: e.of_operands(e.extreme_of),
        Backward.CHOOSE: e.of_operands(e.chosen),
        Backward.MULTIPLY: e.of_operands(e.multiply),
        Backward.DIVIDE: e.of_operands(e.divide),
        Backward.MAX_POOL: r.max_pool,
        Backward.AVERAGE_POOL: r.average_pool,
        Backward.GLOBAL_AVERAGE: r.global_pool(r.of_mean),
        Backward.GLOBAL_EXTREME: r.global_pool(r.of_extreme),
        Backward.SUM: r.reduction(r.of_sum),
        Backward.MEAN: r.reduction(r.of_mean),
        Backward.EXTREME: r.reduction(r.of_extreme),
        Backward.SUM_OF_ABSOLUTES: r.reduction(r.of_absolutes),
        Backward.LENGTH: r.reduction(r.of_length),
        Backward.SUM_OF_SQUARES: r.reduction(r.of_squares),
        Backward.COPY: e.passed,
        Backward.RESHAPE: m.reshape,
        Backward.TRANSPOSE: m.transpose,
        Backward.EXPAND: m.expand,
        Backward.CONCAT: m.concat,
        Backward.SPLIT: m.split,
        Backward.SLICE: m.slices,
        Backward.GATHER: m.gather,
        Backward.GATHER_ELEMENTS: m.gather_elements,
        Backward.SELECT: m.largest,
        Backward.PAD: m.pad,
        Backward.RESIZE: m.resize,
        Backward.DEPTH_TO_SPACE: m.depth_to_space,
        Backward.SPACE_TO_DEPTH: m.space_to_depth,
    }
)
