"""One-layer QDQ models with integer inputs, and what an integer machine makes of them in int64."""

from dataclasses import dataclass, field

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxq.emulation.emulate import emulator
from onnxq.model.files import infer_shapes
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.operators import is_quantize
from onnxq.model.session import open_session, run, with_outputs

INTEGERS = {
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "int16": TensorProto.INT16,
    "uint16": TensorProto.UINT16,
}


@dataclass
class Scale:
    """Scale and zero point of a tensor."""

    dtype: str
    scale: np.ndarray
    zero: np.ndarray
    axis: int | None = None

    @property
    def limits(self):
        info = np.iinfo(self.dtype)
        return info.min, info.max


@dataclass
class Layer:
    """A graph in the making: `x0`, `x1`, … are integer inputs, dequantized to `d0`, `d1`, …"""

    nodes: list = field(default_factory=list)
    inputs: list = field(default_factory=list)
    outputs: list = field(default_factory=list)
    initializers: list = field(default_factory=list)

    def const(self, name, values):
        self.initializers.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def parameters(self, name, scale):
        return [
            self.const(f"{name}_scale", np.asarray(scale.scale, np.float32)),
            self.const(f"{name}_zero", np.asarray(scale.zero, scale.dtype)),
        ]

    def operand(self, scale, shape):
        number = len(self.inputs)
        name, real = f"x{number}", f"d{number}"
        self.inputs.append(helper.make_tensor_value_info(name, INTEGERS[scale.dtype], shape))
        inputs = [name, *self.parameters(name, scale)]
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [real], f"{name}/dq"))
        return real

    def weight(self, name, integers, scale):
        inputs = [self.const(name, integers), *self.parameters(name, scale)]
        axis = {} if scale.axis is None else {"axis": scale.axis}
        self.nodes.append(
            helper.make_node("DequantizeLinear", inputs, [f"{name}_real"], f"{name}/dq", **axis)
        )
        return f"{name}_real"

    def op(self, op_type, inputs, output, **attributes):
        self.nodes.append(helper.make_node(op_type, inputs, [output], output, **attributes))
        return output

    def quantize(self, real, scale, output="y"):
        inputs = [real, *self.parameters(output, scale)]
        self.nodes.append(helper.make_node("QuantizeLinear", inputs, [output], f"{output}/q"))
        self.outputs.append(helper.make_tensor_value_info(output, INTEGERS[scale.dtype], None))

    def real_output(self, name):
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))

    def model(self, opset=17):
        wide = {TensorProto.INT16, TensorProto.UINT16}
        kinds = {tensor.data_type for tensor in self.initializers}
        opset, version = (max(opset, 21), 10) if wide & kinds else (opset, 8)
        graph = helper.make_graph(self.nodes, "layer", self.inputs, self.outputs, self.initializers)
        opsets = [helper.make_opsetid("", opset)]
        return infer_shapes(
            Model(helper.make_model(graph, opset_imports=opsets, ir_version=version))
        )


def emulate(model, *integers):
    """The machine's one output, its plan, and its overflows."""
    machine = emulator(model)
    outputs, overflows = machine.run({f"x{i}": value for i, value in enumerate(integers)})
    return outputs[0], machine.plan, overflows


def reference(nodes, initializers, feeds, output):
    """The value onnx's reference evaluator gives."""
    names = {name: helper.np_dtype_to_tensor_dtype(v.dtype) for name, v in feeds.items()}
    graph = helper.make_graph(
        nodes, "reference",
        [helper.make_tensor_value_info(n, t, feeds[n].shape) for n, t in names.items()],
        [helper.make_tensor_value_info(output, TensorProto.UNDEFINED, None)],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in initializers.items()],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return ReferenceEvaluator(proto).run(None, feeds)[0]


def integer_tensors(machine, feeds):
    """Every integer tensor of a machine: name → (by ONNX Runtime, by onnx's evaluator)."""
    graph = Graph(machine)
    names = [node.output for node in graph.nodes if is_quantize(node)]
    proto = with_outputs(machine, names)
    for value, name in zip(proto.graph.output, names, strict=True):
        value.CopyFrom(helper.make_tensor_value_info(name, graph.elem_type(name), None))
    # The evaluator of onnx 1.23 has no DequantizeLinear of sets 13 to 18.
    for entry in proto.opset_import:
        entry.version = max(entry.version, 19)
    ours = run(open_session(with_outputs(machine, names), keep_qdq=True), names, feeds)
    theirs = ReferenceEvaluator(proto).run(names, dict(feeds))
    return dict(zip(names, zip(ours, theirs, strict=True), strict=True))


# --- the arithmetic, in int64 ----------------------------------------------------------------


def _taps(kernel):
    return np.ndindex(*kernel)


def convolution(x, w, *, group=1, strides, pads, dilations):
    """Σ w·x over integers less their zero points; pads are zeros."""
    axes = x.ndim - 2
    padded = np.pad(x, [(0, 0), (0, 0), *((pads[i], pads[axes + i]) for i in range(axes))])
    size = [
        (padded.shape[2 + i] - (w.shape[2 + i] - 1) * dilations[i] - 1) // strides[i] + 1
        for i in range(axes)
    ]
    out = np.zeros((len(x), len(w), *size), np.int64)
    inputs, outputs = w.shape[1], len(w) // group
    for o in range(len(w)):
        first = o // outputs * inputs
        for tap in _taps(w.shape[2:]):
            window = tuple(
                slice(t * d, t * d + (n - 1) * s + 1, s)
                for t, d, s, n in zip(tap, dilations, strides, size, strict=True)
            )
            part = padded[(slice(None), slice(first, first + inputs), *window)]
            out[:, o] += np.tensordot(part, w[(o, slice(None), *tap)], axes=([1], [0]))
    return out


def transposed_convolution(x, w, *, group=1, strides, pads, dilations):
    """The same for ConvTranspose, whose weight is (inputs, outputs of one group, taps…)."""
    axes, outputs, inputs = x.ndim - 2, w.shape[1], w.shape[0] // group
    full = [
        (x.shape[2 + i] - 1) * strides[i] + (w.shape[2 + i] - 1) * dilations[i] + 1
        for i in range(axes)
    ]
    out = np.zeros((len(x), outputs * group, *full), np.int64)
    for o in range(outputs * group):
        g, column = divmod(o, outputs)
        mine = slice(g * inputs, (g + 1) * inputs)
        for tap in _taps(w.shape[2:]):
            window = tuple(
                slice(t * d, t * d + (n - 1) * s + 1, s)
                for t, d, s, n in zip(tap, dilations, strides, x.shape[2:], strict=True)
            )
            part = np.tensordot(x[:, mine], w[(mine, column, *tap)], axes=([1], [0]))
            out[(slice(None), o, *window)] += part
    ends = [slice(pads[i], full[i] - pads[axes + i]) for i in range(axes)]
    return out[(slice(None), slice(None), *ends)]


def factor(x, w, y=None, *, channels=None):
    """float32(float32(sx·sw)/sy), or float32(sx·sw)."""
    step = np.float32(x.scale) * np.asarray(w.scale, np.float32)
    if y is not None:
        step = (step / np.float32(y.scale)).astype(np.float32)
    if step.ndim and channels is not None:
        step = np.tile(step, channels // step.size)
    return step


def along(vector, rank, axis):
    """A vector shaped to broadcast along an axis."""
    vector = np.asarray(vector)
    if vector.ndim == 0:
        return vector
    shape = [1] * rank
    shape[axis] = -1
    return vector.reshape(shape)


def requantize(total, by, y, low=-np.inf, high=np.inf):
    """The formula of docs/emulation.md; low and high are real limits of a fused activation."""
    steps = np.rint(total.astype(np.float32) * by.astype(np.float32)) + np.float32(y.zero)
    ends = np.array([y.limits[0], y.limits[1]], np.float32)
    limits = np.clip(np.rint(np.float32([low, high]) / np.float32(y.scale)) + y.zero, *ends)
    return np.clip(np.clip(steps, *ends), *limits).astype(y.dtype)


def quantize(real, y):
    """ONNX's QuantizeLinear."""
    steps = np.rint(real.astype(np.float32) / np.float32(y.scale)) + np.float32(y.zero)
    return np.clip(steps, *y.limits).astype(y.dtype)
