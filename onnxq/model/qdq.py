"""THE reader of Q/DQ: which tensors stand for numbers of which format, whoever wrote the model.

A DequantizeLinear says that its float result stands for stored numbers: real = (q − zero_point) ·
scale. Everything that wants to know what is quantized, and how, asks here: the format, granularity,
scale and zero point, also where no zero point is given, where `output_dtype` states the format,
and by block. What a caller can use of it is the caller's own condition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxq.formats.granularity import PER_TENSOR, Blocks, Granularity, PerChannel
from onnxq.formats.parameters import Parameters, dequantize, quantize
from onnxq.formats.table import UNSTATED, Floating, Format, format_of
from onnxq.model.graph import Graph, Node
from onnxq.model.model import Model
from onnxq.model.operators import is_dequantize, is_quantize
from onnxq.refusal import Refusal

Array = NDArray[Any]

_SCALES = frozenset(
    {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.FLOAT8E8M0,
    }
)
"""Element types of scales."""


@dataclass(frozen=True)
class Quantization:
    """What one QuantizeLinear or DequantizeLinear says.

    Attributes:
        real, stored: the float tensor, and the one of numbers that it stands for.
        parameters: format, granularity, scale (float32, whatever the model stores) and zero point.
    """

    real: str
    stored: str
    parameters: Parameters

    @property
    def format(self) -> Format:
        return self.parameters.format


class QdqGraph(Graph):
    """A graph whose quantized constants are constants: `constant` looks through Q and DQ.

    So the operator table finds weights and their layouts as in the float model.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self._through: dict[str, Array | None] = {}

    def constant(self, name: str) -> Array | None:
        """The value of a constant, dequantized where stored numbers stand for it."""
        value = super().constant(name)
        if value is not None:
            return value
        if name not in self._through:
            self._through[name] = self._look_through(name)
        return self._through[name]

    def is_float(self, name: str) -> bool:
        """Also of a constant that `constant` dequantizes to float32 from float16 scales."""
        value = None if super().is_float(name) else self.constant(name)
        return super().is_float(name) if value is None else bool(value.dtype == np.float32)

    def _look_through(self, name: str) -> Array | None:
        producer = self.producers.get(name)
        found = None if producer is None else quantization_of(self, producer)
        if producer is None or found is None or isinstance(found, Refusal):
            return None
        source = self.constant(producer.input(0))
        if source is None or not found.parameters.fits(source.shape):
            return None
        return (dequantize if is_dequantize(producer) else quantize)(source, found.parameters)


def quantization_of(graph: Graph, node: Node) -> Quantization | Refusal | None:
    """What a node says of quantization; None for one that is neither Q nor DQ.

    Args:
        graph: in which constants are initializers, such as that of a normalized model.

    Returns:
        A `Refusal` where scales or zero points are no constants, no positive numbers, or contradict
        each other or the format.
    """
    if not (is_quantize(node) or is_dequantize(node)):
        return None
    real, stored = node.output, node.input(0)
    if is_quantize(node):
        real, stored = stored, real
    scale, zero = Graph.constant(graph, node.input(1)), Graph.constant(graph, node.input(2))
    if scale is None or (node.input(2) and zero is None):
        return Refusal(f"the scale of {node.output!r} is computed at run time")
    if graph.elem_type(node.input(1)) not in _SCALES:
        return Refusal(f"the scale of {node.output!r} is {scale.dtype}")
    format_ = _format(graph, node, stored)
    if isinstance(format_, Refusal):
        return format_
    values = scale.astype(np.float32)
    if not (np.isfinite(values) & (values > 0)).all():
        return Refusal(f"the scale of {node.output!r} is not a positive number")
    granularity = _granularity(graph, node, scale.shape)
    if isinstance(granularity, Refusal):
        return granularity
    if zero is None or isinstance(format_.grid, Floating):
        zero = np.zeros(scale.shape, np.int32)
    if zero.size != scale.size:
        return Refusal(f"{node.output!r} has {scale.size} scales and {zero.size} zero points")
    shape = () if granularity == PER_TENSOR else scale.shape
    parameters = Parameters(
        format_, values.reshape(shape), zero.astype(np.int32).reshape(shape), granularity
    )
    return Quantization(real, stored, parameters)


def _format(graph: Graph, node: Node, stored: str) -> Format | Refusal:
    """Stated by the zero point, `output_dtype`, the stored tensor or its maker, in this order."""
    stated = graph.elem_type(node.input(2)) if node.input(2) else 0
    if not stated and is_quantize(node):
        stated = node.attributes.get("output_dtype", 0)
    stated = stated or graph.elem_type(stored)
    maker = graph.producers.get(stored)
    if not stated and maker is not None and maker is not node and is_quantize(maker):
        return _format(graph, maker, stored)
    if not stated:
        return UNSTATED
    found = format_of(stated)
    if found is None:
        kind = onnx.TensorProto.DataType.Name(stated).lower()
        return Refusal(f"{stored!r} is {kind}, which is no quantized format")
    return found


def _granularity(graph: Graph, node: Node, scale: tuple[int, ...]) -> Granularity | Refusal:
    size = node.attributes.get("block_size", 0)
    axis = node.attributes.get("axis", 1)
    if size:
        found = Blocks(axis, size)
        shape = graph.shape(node.input(0))
        known = None if shape is None or not all(isinstance(n, int) for n in shape) else shape
        if known is not None and not found.fits(scale, tuple(int(n or 0) for n in known)):
            return Refusal(f"the scales of {node.output!r} do not fit its blocks of {size}")
        return found
    if len(scale) == 0 or scale == (1,):
        return PER_TENSOR
    if len(scale) != 1:
        return Refusal(f"the scales of {node.output!r} have {len(scale)} axes but no block size")
    return PerChannel(axis)


def standing_for(graph: Graph, name: str) -> Quantization | Refusal:
    """The stored numbers that a float tensor stands for."""
    producer = graph.producers.get(name)
    if producer is None or not is_dequantize(producer):
        return Refusal(f"{name!r} is not quantized")
    return quantization_of(graph, producer) or Refusal(f"{name!r} is not quantized")


def quantizer_of(graph: Graph, name: str) -> tuple[Node, Quantization] | Refusal:
    """The QuantizeLinear that alone reads a float tensor."""
    uses = graph.consumers(name)
    alone = len(uses) == 1 and not graph.is_exposed(name)
    if not alone or uses[0].position != 0 or not is_quantize(uses[0].node):
        return Refusal("its result is not quantized, or read in float too")
    found = quantization_of(graph, uses[0].node)
    if found is None or isinstance(found, Refusal):
        return found or Refusal("its result is not quantized")
    return uses[0].node, found


def stored_weight(graph: Graph, name: str) -> Quantization | Refusal:
    """The stored constant that a float tensor stands for, scales that fit it included."""
    found = standing_for(graph, name)
    if isinstance(found, Refusal):
        return found
    value = graph.constant(found.stored)
    if value is None:
        return Refusal(f"{name!r} is not a constant")
    if not found.parameters.fits(value.shape):
        return Refusal(f"the scales of {name!r} do not fit it")
    return found


def quantized_activations(graph: Graph) -> dict[str, Quantization]:
    """Float tensor → how it is quantized; of several quantizers the first, constants aside."""
    found: dict[str, Quantization] = {}
    for node in graph.nodes:
        if not is_quantize(node) or graph.constant(node.input(0)) is not None:
            continue
        said = quantization_of(graph, node)
        if said is not None and not isinstance(said, Refusal):
            found.setdefault(said.real, said)
    return found
