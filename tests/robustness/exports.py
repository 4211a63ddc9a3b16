"""Graphs in the style of exporters, written down with onnx.helper; each takes float input "x"."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 8


class Export:
    """Nodes and weights of a model in the making."""

    def __init__(self, opset, ir_version=8, *, seed=0):
        self.rng = np.random.default_rng(seed)
        self.opset, self.ir_version = opset, ir_version
        self.nodes, self.weights, self.functions, self.domains = [], [], [], []

    def weight(self, name, *shape):
        values = self.rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)
        return self.const(name, values.astype(np.float32))

    def const(self, name, values):
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def op(self, op_type, inputs, output, **attributes):
        self.nodes.append(helper.make_node(op_type, inputs, [output], **attributes))
        return output

    def constant(self, output, values):
        """A Constant node, as PyTorch and Paddle write weights and shapes."""
        return self.op("Constant", [], output, value=numpy_helper.from_array(np.asarray(values)))

    def model(self, output, shape, out_shape, *, listed=False):
        info = helper.make_tensor_value_info
        inputs = [info("x", TensorProto.FLOAT, shape)]
        if listed:
            inputs += [info(t.name, t.data_type, t.dims) for t in self.weights]
        graph = helper.make_graph(
            self.nodes, "export", inputs, [info(output, TensorProto.FLOAT, out_shape)], self.weights
        )
        opsets = [helper.make_opsetid("", self.opset)]
        opsets += [helper.make_opsetid(domain, 1) for domain in self.domains]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=self.ir_version,
                                  functions=self.functions, producer_name="exporter")  # fmt: skip
        helper.set_model_props(model, {"author": "me", "labels": '["a", "b"]'})
        return model


def clip6(b, x, output):
    """ReLU6 as each operator set writes it."""
    if b.opset < 11:
        return b.op("Clip", [x], output, min=0.0, max=6.0)
    b.const(f"{output}_low", np.float32(0))
    b.const(f"{output}_high", np.float32(6))
    return b.op("Clip", [x, f"{output}_low", f"{output}_high"], output)


def torchscript(opset, ir_version=8, **options):
    """PyTorch's TorchScript exporter: numbered tensors, flatten as Shape-Gather-Concat-Reshape."""
    b = Export(opset, ir_version)
    b.op("Conv", ["x", b.weight("features.0.weight", 8, 3, 3, 3)], "11", pads=[1, 1, 1, 1],
         kernel_shape=[3, 3])  # fmt: skip
    for name in ("weight", "bias", "running_mean"):
        b.weight(f"features.1.{name}", 8)
    b.const("features.1.running_var", np.linspace(0.5, 2, 8).astype(np.float32))
    b.op(
        "BatchNormalization",
        ["11", *(f"features.1.{n}" for n in ("weight", "bias", "running_mean", "running_var"))],
        "12",
        epsilon=1e-5,
    )
    clip6(b, "12", "13")
    b.op("Conv", ["13", b.weight("features.3.weight", 8, 1, 3, 3)], "14", group=8,
         pads=[1, 1, 1, 1], kernel_shape=[3, 3])  # fmt: skip
    b.op("Relu", ["14"], "15")
    b.op("Add", ["13", "15"], "16")
    b.op("GlobalAveragePool", ["16"], "17")
    b.op("Shape", ["17"], "18")
    b.constant("19", np.array(0, np.int64))
    b.op("Gather", ["18", "19"], "20", axis=0)
    b.constant("21", np.array([-1], np.int64))
    if opset < 13:
        b.op("Unsqueeze", ["20"], "22", axes=[0])
    else:
        b.constant("zero_axis", np.array([0], np.int64))
        b.op("Unsqueeze", ["20", "zero_axis"], "22")
    b.op("Concat", ["22", "21"], "23", axis=0)
    b.op("Reshape", ["17", "23"], "24")
    b.op(
        "Gemm",
        ["24", b.weight("classifier.weight", 4, 8), b.weight("classifier.bias", 4)],
        "output",
        transB=1,
    )
    return b.model("output", ["batch_size", 3, SIDE, SIDE], ["batch_size", 4], **options)


def dynamo(opset):
    """PyTorch's newer exporter: dotted names, Constant nodes, a local function for an activation."""
    b = Export(opset, 10)
    b.domains = ["pkg.torch"]
    body = [helper.make_node("Sigmoid", ["v"], ["s"]), helper.make_node("Mul", ["v", "s"], ["w"])]
    b.functions = [
        helper.make_function(
            "pkg.torch", "silu", ["v"], ["w"], body, [helper.make_opsetid("", opset)]
        )
    ]
    b.op(
        "Conv",
        ["x", b.weight("conv.weight", 8, 3, 3, 3), b.weight("conv.bias", 8)],
        "conv2d",
        pads=[1, 1, 1, 1],
    )
    b.nodes.append(helper.make_node("silu", ["conv2d"], ["silu"], domain="pkg.torch"))
    b.op("Conv", ["silu", b.weight("conv2.weight", 8, 8, 1, 1)], "conv2d_1")
    b.op("Relu", ["conv2d_1"], "relu")
    b.constant("val_1", np.array([2, 3], np.int64))
    b.op("ReduceMean", ["relu", "val_1"], "mean", keepdims=0) if opset >= 18 else b.op(
        "ReduceMean", ["relu"], "mean", axes=[2, 3], keepdims=0
    )
    b.op("MatMul", ["mean", b.weight("fc.weight_t", 8, 4)], "matmul")
    b.op("Add", ["matmul", b.weight("fc.bias", 4)], "linear")
    return b.model("linear", ["s0", 3, SIDE, SIDE], ["s0", 4])


def tf2onnx(opset):
    """tf2onnx: NHWC input behind a Transpose, names with colons, Min and Max as ReLU6."""
    b = Export(opset, 7)
    b.op("Transpose", ["x"], "model/conv1/Conv2D__6:0", perm=[0, 3, 1, 2])
    b.op("Conv", ["model/conv1/Conv2D__6:0", b.weight("model/conv1/kernel/read:0", 8, 3, 3, 3), b.weight("model/conv1/bias:0", 8)],
         "model/conv1/BiasAdd:0", auto_pad="SAME_UPPER", strides=[2, 2], kernel_shape=[3, 3])  # fmt: skip
    b.op("Max", ["model/conv1/BiasAdd:0", b.const("zero:0", np.float32(0))], "model/relu6/Max:0")
    b.op("Min", ["model/relu6/Max:0", b.const("six:0", np.float32(6))], "model/relu6/Min:0")
    b.op("Identity", ["model/relu6/Min:0"], "model/id1:0")
    b.op("Identity", ["model/id1:0"], "model/id2:0")
    b.op(
        "Conv",
        ["model/id2:0", b.weight("model/dw/kernel:0", 8, 1, 3, 3)],
        "model/dw:0",
        group=8,
        auto_pad="SAME_LOWER",
        kernel_shape=[3, 3],
    )
    b.op("Relu", ["model/dw:0"], "model/relu:0")
    b.op("Transpose", ["model/relu:0"], "model/nhwc:0", perm=[0, 2, 3, 1])
    b.op("ReduceMean", ["model/nhwc:0"], "model/pool:0", axes=[1, 2], keepdims=0)
    b.op("MatMul", ["model/pool:0", b.weight("model/dense/kernel:0", 8, 4)], "model/dense/MatMul:0")
    b.op("Add", ["model/dense/MatMul:0", b.weight("model/dense/bias:0", 4)], "Identity:0")
    return b.model("Identity:0", ["unk__1", SIDE, SIDE, 3], ["unk__1", 4])


def paddle(opset):
    """Paddle: weights as Constant nodes, −1 for the batch, Identity chains, Mul and Add as batch norm."""
    b = Export(opset, 7)
    b.constant("conv2d_0.w_0", (b.rng.standard_normal((8, 3, 3, 3)) / 5).astype(np.float32))
    b.op("Identity", ["x"], "x.0")
    b.op(
        "Conv",
        ["x.0", "conv2d_0.w_0"],
        "conv2d_0.tmp_0",
        pads=[1, 1, 1, 1],
        dilations=[1, 1],
        group=1,
        kernel_shape=[3, 3],
    )
    b.constant("scale", np.linspace(0.5, 2, 8).astype(np.float32).reshape(1, 8, 1, 1))
    b.constant("shift", np.linspace(-1, 1, 8).astype(np.float32).reshape(1, 8, 1, 1))
    b.op("Mul", ["conv2d_0.tmp_0", "scale"], "bn.0")
    b.op("Add", ["bn.0", "shift"], "bn.1")
    b.op("HardSigmoid", ["bn.1"], "hs", alpha=0.1666667, beta=0.5)
    b.op("Mul", ["bn.1", "hs"], "hswish")
    b.op("AveragePool", ["hswish"], "pool2d_0.tmp_0", kernel_shape=[SIDE, SIDE])
    b.op("Flatten", ["pool2d_0.tmp_0"], "flat", axis=1)
    b.constant("linear_0.w_0", (b.rng.standard_normal((8, 4)) / 3).astype(np.float32))
    b.constant("linear_0.b_0", np.zeros(4, np.float32))
    b.op("MatMul", ["flat", "linear_0.w_0"], "linear_0.tmp_0")
    b.op("Add", ["linear_0.tmp_0", "linear_0.b_0"], "linear_0.tmp_1")
    b.op("Softmax", ["linear_0.tmp_1"], "softmax_0.tmp_0", axis=-1 if opset >= 13 else 1)
    return b.model("softmax_0.tmp_0", [-1, 3, SIDE, SIDE], [-1, 4])


def sklearn(opset):
    """skl2onnx: a scaler and an MLP on a table, a Cast and a Reshape in between."""
    b = Export(opset, 8)
    b.op("Sub", ["x", b.weight("Su_Subcst", 6)], "variable1")
    b.op(
        "Div",
        ["variable1", b.const("Di_Divcst", np.linspace(0.5, 3, 6).astype(np.float32))],
        "variable2",
    )
    b.op("Cast", ["variable2"], "cast_input", to=TensorProto.FLOAT)
    b.op("MatMul", ["cast_input", b.weight("coefficient", 6, 16)], "mul_result")
    b.op("Add", ["mul_result", b.const("intercepts", np.zeros((1, 16), np.float32))], "add_result")
    b.op("Relu", ["add_result"], "next_activations")
    b.op("MatMul", ["next_activations", b.weight("coefficient1", 16, 3)], "mul_result1")
    b.op("Add", ["mul_result1", b.weight("intercepts1", 1, 3)], "add_result1")
    b.op("Softmax", ["add_result1"], "out", axis=1)
    b.const("shape_tensor", np.array([-1, 3], np.int64))
    b.op("Reshape", ["out", "shape_tensor"], "probabilities")
    return b.model("probabilities", [None, 6], [None, 3])


def control_flow(opset):
    """An If on the batch's mean, and a Loop that adds; both hold weights of the outer graph."""
    b = Export(opset, 8)
    b.op("Gemm", ["x", b.weight("w1", 6, 8)], "h")
    b.op("Relu", ["h"], "r")
    info = helper.make_tensor_value_info
    b.op("ReduceMax", ["r"], "m", keepdims=0)
    b.op("Greater", ["m", b.const("zero", np.float32(0))], "yes")
    then = helper.make_graph(
        [helper.make_node("MatMul", ["r", "w2"], ["t"])], "then", [], [info("t", 1, None)]
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["r"], ["e"])], "else", [], [info("e", 1, None)]
    )
    b.weight("w2", 8, 8)
    b.op("If", ["yes"], "i", then_branch=then, else_branch=other)
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_out"]), helper.make_node("Add", ["v", "r"], ["v_out"])],
        "body", [info("n", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("v", 1, None)],
        [info("go_out", TensorProto.BOOL, []), info("v_out", 1, None)],
    )  # fmt: skip
    b.op(
        "Loop",
        [b.const("times", np.array(2, np.int64)), b.const("true", np.array(True)), "i"],
        "l",
        body=body,
    )
    b.op("Gemm", ["l", b.weight("w3", 8, 3)], "y")
    return b.model("y", ["N", 6], ["N", 3])


def named(model, how):
    """The model with node names as careless exporters leave them."""
    for node in model.graph.node:
        node.name = {"unnamed": "", "same": "node", "slashes": f"/a/{node.op_type}"}[how]
    return model


def listed(opset, ir_version=3):
    """IR version 3: every weight is a graph input too."""
    return torchscript(opset, ir_version, listed=True)


EXPORTS = {
    **{
        f"torchscript-{opset}": (lambda o=opset: torchscript(o))
        for opset in (7, 9, 11, 13, 17, 21, 23)
    },
    "torchscript-24-newest-ir": lambda: torchscript(24, 10),
    "ir3-opset8": lambda: listed(8),
    "ir3-opset7-one-batch": lambda: listed(7),
    **{f"dynamo-{opset}": (lambda o=opset: dynamo(o)) for opset in (17, 18, 20, 23)},
    "tf2onnx-11": lambda: tf2onnx(11),
    "tf2onnx-13": lambda: tf2onnx(13),
    "tf2onnx-17": lambda: tf2onnx(17),
    "paddle-11": lambda: paddle(11),
    "paddle-13": lambda: paddle(13),
    "sklearn-15": lambda: sklearn(15),
    "sklearn-21": lambda: sklearn(21),
    "control-flow-13": lambda: control_flow(13),
    "control-flow-19": lambda: control_flow(19),
    "unnamed": lambda: named(torchscript(17), "unnamed"),
    "duplicate-names": lambda: named(tf2onnx(13), "same"),
    "slashes": lambda: named(paddle(13), "slashes"),
}


def samples(model, count=16):
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    x = np.random.default_rng(2).standard_normal((count, *shape))
    return x.astype(np.float32)


def loads(model):
    onnx.checker.check_model(model)
