"""A column of the operator table: how a gradient passes each operator, backwards.

It stands by itself, as it also knows operators that have no row: of those nothing else matters.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

from onnxq.model.graph import Graph, Node


class Backward(enum.Enum):
    """How a gradient passes an operator, from its outputs to its inputs.

    The rules themselves are in `onnxq.gradients.rules`.
    """

    CONVOLUTION = "convolution"
    TRANSPOSED_CONVOLUTION = "transposed-convolution"
    GEMM = "gemm"
    MATRICES = "matrices"
    EINSUM = "einsum"
    BATCH_NORM = "batch-norm"
    INSTANCE_NORM = "instance-norm"
    GROUP_NORM = "group-norm"
    LAYER_NORM = "layer-norm"
    RMS_NORM = "rms-norm"
    RELU = "relu"
    LEAKY_RELU = "leaky-relu"
    PRELU = "prelu"
    CLIP = "clip"
    SIGMOID = "sigmoid"
    HARD_SIGMOID = "hard-sigmoid"
    HARD_SWISH = "hard-swish"
    SOFTMAX = "softmax"
    LOG_SOFTMAX = "log-softmax"
    TANH = "tanh"
    GELU = "gelu"
    ELU = "elu"
    ERF = "erf"
    ABSOLUTE = "absolute"
    NEGATIVE = "negative"
    SOFTPLUS = "softplus"
    MISH = "mish"
    EXPONENTIAL = "exponential"
    LOGARITHM = "logarithm"
    ROOT = "root"
    SINE = "sine"
    COSINE = "cosine"
    SOFTSIGN = "softsign"
    RECIPROCAL = "reciprocal"
    POWER = "power"
    ADD = "add"
    SUBTRACT = "subtract"
    MEAN_OF_OPERANDS = "mean-of-operands"
    EXTREME_OF_OPERANDS = "extreme-of-operands"
    CHOOSE = "choose"
    MULTIPLY = "multiply"
    DIVIDE = "divide"
    MAX_POOL = "max-pool"
    AVERAGE_POOL = "average-pool"
    GLOBAL_AVERAGE = "global-average"
    GLOBAL_EXTREME = "global-extreme"
    SUM = "sum"
    MEAN = "mean"
    EXTREME = "extreme"
    SUM_OF_ABSOLUTES = "sum-of-absolutes"
    LENGTH = "length"
    SUM_OF_SQUARES = "sum-of-squares"
    COPY = "copy"
    RESHAPE = "reshape"
    TRANSPOSE = "transpose"
    EXPAND = "expand"
    CONCAT = "concat"
    SPLIT = "split"
    SLICE = "slice"
    GATHER = "gather"
    PAD = "pad"
    RESIZE = "resize"
    DEPTH_TO_SPACE = "depth-to-space"
    SPACE_TO_DEPTH = "space-to-depth"
    GATHER_ELEMENTS = "gather-elements"
    SELECT = "select"
    """It finds the largest elements, by comparing: what it compares counts as an output does."""
    ZERO = "zero"
    """Its result stays the same when its input changes a little."""
    NONE = "none"
    """No gradient passes: it stops here, and with it those of all that leads here."""


_B = Backward

BACKWARD: Mapping[str, Backward] = MappingProxyType(
    {
        "Conv": _B.CONVOLUTION,
        "ConvTranspose": _B.TRANSPOSED_CONVOLUTION,
        "Gemm": _B.GEMM,
        "MatMul": _B.MATRICES,
        "Einsum": _B.EINSUM,
        "BatchNormalization": _B.BATCH_NORM,
        "InstanceNormalization": _B.INSTANCE_NORM,
        "GroupNormalization": _B.GROUP_NORM,
        "LayerNormalization": _B.LAYER_NORM,
        "RMSNormalization": _B.RMS_NORM,
        "Relu": _B.RELU,
        "LeakyRelu": _B.LEAKY_RELU,
        "PRelu": _B.PRELU,
        "Clip": _B.CLIP,
        "Sigmoid": _B.SIGMOID,
        "HardSigmoid": _B.HARD_SIGMOID,
        "HardSwish": _B.HARD_SWISH,
        "Softmax": _B.SOFTMAX,
        "LogSoftmax": _B.LOG_SOFTMAX,
        "Tanh": _B.TANH,
        "Gelu": _B.GELU,
        "Elu": _B.ELU,
        "Erf": _B.ERF,
        "Abs": _B.ABSOLUTE,
        "Neg": _B.NEGATIVE,
        "Softplus": _B.SOFTPLUS,
        "Mish": _B.MISH,
        "Exp": _B.EXPONENTIAL,
        "Log": _B.LOGARITHM,
        "Sqrt": _B.ROOT,
        "Sin": _B.SINE,
        "Cos": _B.COSINE,
        "Softsign": _B.SOFTSIGN,
        "Reciprocal": _B.RECIPROCAL,
        "Pow": _B.POWER,
        "Add": _B.ADD,
        "Sum": _B.ADD,
        "Sub": _B.SUBTRACT,
        "Mean": _B.MEAN_OF_OPERANDS,
        "Max": _B.EXTREME_OF_OPERANDS,
        "Min": _B.EXTREME_OF_OPERANDS,
        "Where": _B.CHOOSE,
        "Mul": _B.MULTIPLY,
        "Div": _B.DIVIDE,
        "MaxPool": _B.MAX_POOL,
        "AveragePool": _B.AVERAGE_POOL,
        "GlobalAveragePool": _B.GLOBAL_AVERAGE,
        "GlobalMaxPool": _B.GLOBAL_EXTREME,
        "ReduceSum": _B.SUM,
        "ReduceMean": _B.MEAN,
        "ReduceMax": _B.EXTREME,
        "ReduceMin": _B.EXTREME,
        "ReduceL1": _B.SUM_OF_ABSOLUTES,
        "ReduceL2": _B.LENGTH,
        "ReduceSumSquare": _B.SUM_OF_SQUARES,
        "Identity": _B.COPY,
        "Dropout": _B.COPY,
        "Flatten": _B.RESHAPE,
        "Reshape": _B.RESHAPE,
        "Squeeze": _B.RESHAPE,
        "Unsqueeze": _B.RESHAPE,
        "Transpose": _B.TRANSPOSE,
        "Expand": _B.EXPAND,
        "Concat": _B.CONCAT,
        "Split": _B.SPLIT,
        "Slice": _B.SLICE,
        "Gather": _B.GATHER,
        "GatherElements": _B.GATHER_ELEMENTS,
        "Pad": _B.PAD,
        "Resize": _B.RESIZE,
        "DepthToSpace": _B.DEPTH_TO_SPACE,
        "SpaceToDepth": _B.SPACE_TO_DEPTH,
        "ArgMax": _B.SELECT,
        "ArgMin": _B.SELECT,
        "TopK": _B.SELECT,
        "NonMaxSuppression": _B.SELECT,
        "Sign": _B.ZERO,
        "Floor": _B.ZERO,
        "Ceil": _B.ZERO,
        "Round": _B.ZERO,
        "Shape": _B.ZERO,
        "Size": _B.ZERO,
    }
)


def backward_of(node: Node) -> Backward:
    """How a gradient passes the node."""
    return Backward.NONE if node.domain else BACKWARD.get(node.op_type, Backward.NONE)


_SIZED_BY_VALUES = frozenset(
    {"NonMaxSuppression", "NonZero", "Unique", "Compress", "If", "Loop", "Scan"}
)


def is_sized_by_values(node: Node) -> bool:
    """Whether the shapes of its outputs may follow from more than the shapes of its inputs."""
    return bool(node.domain) or node.op_type in _SIZED_BY_VALUES


def sized_by_values(graph: Graph) -> frozenset[str]:
    """The tensors whose shapes may follow from values, as that of what a suppression keeps."""
    found: set[str] = set()
    for node in graph.nodes:
        if is_sized_by_values(node) or not found.isdisjoint(node.inputs):
            found.update(node.results)
    return frozenset(found)
