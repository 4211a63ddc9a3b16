"""Read a QDQ model, whoever wrote it: which tensors stand for 8-bit integers, and how.

A DequantizeLinear says that its float result stands for integers: real = (q − zero_point) · scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxq.formats.parameters import Parameters, dequantize, quantize
from onnxq.model.graph import Graph, Node
from onnxq.model.model import Model
from onnxq.model.operators import is_dequantize, is_quantize

Array = NDArray[Any]

_SCALES = (np.float32, np.float16)
_EIGHT_BITS = (np.int8, np.uint8)


class NotInteger(Exception):  # noqa: N818 - no error: it carries the reason into the record
    """Why something is not computed in integers."""


@dataclass(frozen=True)
class Quantization:
    """How a float tensor stands for an integer one.

    Attributes:
        integers: name of the integer tensor.
        parameters: scale (float32, also where the model stores float16) and zero point.
    """

    integers: str
    parameters: Parameters

    @property
    def per_tensor(self) -> bool:
        return self.parameters.scale.ndim == 0

    @property
    def is_8_bit(self) -> bool:
        return self.parameters.zero_point.dtype in _EIGHT_BITS

    @property
    def interval(self) -> tuple[int, int]:
        """Smallest and largest q − zero_point (per tensor only); it contains 0."""
        info, zero = np.iinfo(self.parameters.zero_point.dtype), int(self.parameters.zero_point)
        return info.min - zero, info.max - zero


class QdqGraph(Graph):
    """A graph whose quantized constants are constants: `constant` looks through Q and DQ.

    So the operator table finds weights and their layouts as in the float model.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self._through: dict[str, Array | None] = {}

    def constant(self, name: str) -> Array | None:
        """The value of a constant, dequantized where integers stand for it."""
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
        if producer is None or not (is_quantize(producer) or is_dequantize(producer)):
            return None
        source = self.constant(producer.input(0))
        if source is None:
            return None
        try:
            parameters = self.quantization(producer).parameters
        except NotInteger:
            return None
        axis = parameters.axis
        fits = axis is None or (
            -source.ndim <= axis < source.ndim and source.shape[axis] == parameters.scale.size
        )
        if not fits:
            return None
        return (dequantize if is_dequantize(producer) else quantize)(source, parameters)

    def quantization(self, node: Node) -> Quantization:
        """What a Q or DQ node says; raises `NotInteger` where that is nothing usable."""
        tensor = node.output
        scale = super().constant(node.input(1))
        zero = super().constant(node.input(2))
        if scale is None or (node.input(2) and zero is None):
            raise NotInteger(f"the scale of {tensor!r} is computed at run time")
        if scale.dtype not in _SCALES:
            raise NotInteger(f"the scale of {tensor!r} is {scale.dtype}")
        if zero is None:
            zero = np.zeros(scale.shape, self._integer_type(node))
        if zero.dtype.kind not in "iu":
            raise NotInteger(f"{tensor!r} is {zero.dtype}, not 8-bit")
        if scale.size == zero.size == 1:
            scale, zero = scale.reshape(()), zero.reshape(())
        elif node.attributes.get("block_size", 0) or scale.ndim != 1 or zero.shape != scale.shape:
            raise NotInteger(f"{tensor!r} has scales by block")
        values = scale.astype(np.float32)
        if not (np.isfinite(values) & (values > 0)).all():
            raise NotInteger(f"the scale of {tensor!r} is not a positive number")
        integers = node.input(0) if is_dequantize(node) else node.output
        axis = None if scale.ndim == 0 else node.attributes.get("axis", 1)
        return Quantization(integers, Parameters(values, zero, axis))

    def _integer_type(self, node: Node) -> Any:
        """Element type where no zero point tells it."""
        if is_dequantize(node):
            value = self.constant(node.input(0))
            if value is not None:
                return value.dtype
            number = self.elem_type(node.input(0))
        else:
            number = node.attributes.get("output_dtype", 0)
        return onnx.helper.tensor_dtype_to_np_dtype(number or onnx.TensorProto.UINT8)

    def standing_for(self, name: str) -> Quantization:
        """The integers a float tensor stands for; raises `NotInteger`."""
        producer = self.producers.get(name)
        if producer is None or not is_dequantize(producer):
            raise NotInteger(f"{name!r} is not quantized")
        return self.quantization(producer)

    def operand(self, name: str) -> Quantization:
        """The same for an activation of an integer kernel: 8 bits, one scale."""
        found = self.standing_for(name)
        if not found.is_8_bit:
            raise NotInteger(f"{name!r} is {found.parameters.dtype}, not 8-bit")
        if not found.per_tensor:
            raise NotInteger(f"{name!r} has a scale for each channel")
        return found

    def quantizer(self, name: str) -> tuple[Node, Quantization]:
        """The 8-bit, per-tensor QuantizeLinear that alone reads a tensor; raises `NotInteger`."""
        uses = self.consumers(name)
        alone = len(uses) == 1 and not self.is_exposed(name)
        if not alone or uses[0].position != 0 or not is_quantize(uses[0].node):
            raise NotInteger("its result is not quantized, or read in float too")
        found = self.quantization(uses[0].node)
        if not (found.is_8_bit and found.per_tensor):
            raise NotInteger(f"{found.integers!r} is not 8-bit with one scale")
        return uses[0].node, found
