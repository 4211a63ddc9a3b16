"""One node of each operator in its ways: what the rows of the operator table are held against."""

import math

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from onnxq.model.files import infer_shapes
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.operators import operator_of
from onnxq.model.session import open_session, run

OPSETS = {"ReduceMean": 18, "ReduceMax": 18, "ReduceMin": 18, "ReduceL1": 18, "ReduceL2": 18,
          "ReduceSumSquare": 18,
          "Gelu": 20, "Split": 18, "GroupNormalization": 21, "RMSNormalization": 23, "Mish": 18, "Pad": 18, "Resize": 18}  # fmt: skip
IMAGE = (2, 6, 4, 4)


class Case:
    """One node: shapes of its float inputs (None: absent), constants by position, attributes."""

    def __init__(self, *shapes, constants=(), **attributes):
        self.shapes, self.constants, self.attributes = shapes, dict(constants), attributes

    def __repr__(self):
        constants = {k: getattr(v, "tolist", lambda v=v: v)() for k, v in self.constants.items()}
        return f"{self.shapes} {constants or ''} {self.attributes or ''}"


def at(**positions):
    """Constants by position: at(_1=…, _2=…)."""
    return tuple((int(key[1:]), value) for key, value in positions.items())


def ints(*values):
    return np.array(values, np.int64)


def floats(*values):
    return np.array(values, np.float32)


def scalar(value):
    return np.float32(value)


RNG = np.random.default_rng(1)


def random(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


NORM = at(_1=random(6), _2=random(6))
BATCH_NORM = at(_1=random(6), _2=random(6), _3=random(6), _4=np.abs(random(6)) + scalar(0.5))
POOL = {"kernel_shape": [3, 3], "pads": [1, 0, 1, 1], "strides": [2, 1]}
PAIR = [
    Case(IMAGE, IMAGE),
    Case(IMAGE, constants=at(_1=random(6, 1, 1))),
    Case(IMAGE, (2, 6, 1, 1)),
]
MANY = [*PAIR, Case(IMAGE, IMAGE, IMAGE)]


def reductions(attribute):
    if attribute:
        return [Case(IMAGE, axes=[2, 3]), Case(IMAGE, axes=[-1], keepdims=0), Case(IMAGE)]
    return [
        Case(IMAGE, constants=at(_1=ints(2, 3))),
        Case(IMAGE, constants=at(_1=ints(-1)), keepdims=0),
        Case(IMAGE, constants=at(_1=ints(1)), keepdims=0),
        Case(IMAGE),
        Case(IMAGE, keepdims=0),
        Case(IMAGE, noop_with_empty_axes=1),
    ]


CASES = {
    "Conv": [
        Case(IMAGE, constants=at(_1=random(8, 6, 3, 3), _2=random(8)), pads=[1] * 4),
        Case(IMAGE, constants=at(_1=random(12, 1, 3, 3)), group=6),
        Case(IMAGE, constants=at(_1=random(9, 2, 1, 1), _2=random(9)), group=3, strides=[2, 1]),
        Case((2, 6, 7), constants=at(_1=random(4, 3, 3)), group=2, dilations=[2]),
        Case((2, 4, 3, 3, 3), constants=at(_1=random(3, 4, 2, 2, 2))),
    ],
    "ConvTranspose": [
        Case(IMAGE, constants=at(_1=random(6, 4, 2, 2), _2=random(4)), strides=[2, 2]),
        Case(IMAGE, constants=at(_1=random(6, 2, 3, 3), _2=random(6)), group=3),
        Case(IMAGE, constants=at(_1=random(6, 1, 2, 2)), group=6, output_padding=[1, 0], strides=[2, 2]),
        Case((2, 6, 5), constants=at(_1=random(6, 4, 3)), group=2),
    ],
    "Gemm": [
        Case((3, 5), constants=at(_1=random(5, 4), _2=random(4))),
        Case((3, 5), constants=at(_1=random(4, 5), _2=random(3, 1)), transB=1, alpha=0.3, beta=1.7),
        Case((5, 3), constants=at(_1=random(5, 4), _2=scalar(0.3)), transA=1),
        Case((3, 5), constants=at(_1=random(5, 4), _2=random(1, 4))),
        Case((3, 5), constants=at(_1=random(5, 4))),
    ],
    "MatMul": [
        Case((3, 5), constants=at(_1=random(5, 4))),
        Case((2, 3, 5), constants=at(_1=random(5, 4))),
        Case((2, 3, 5), constants=at(_1=random(2, 5, 4))),
        Case((5,), constants=at(_1=random(5, 4))),
    ],
    "BatchNormalization": [
        Case(IMAGE, constants=BATCH_NORM, epsilon=1e-3),
        Case((2, 6), constants=BATCH_NORM),
    ],
    "InstanceNormalization": [Case(IMAGE, constants=NORM)],
    "GroupNormalization": [Case(IMAGE, constants=NORM, num_groups=3)],
    "RMSNormalization": [Case((2, 4, 6), constants=at(_1=random(6)))],
    "Sign": [Case(IMAGE)],
    "ArgMax": [Case(IMAGE, axis=2), Case(IMAGE, axis=-3, keepdims=0), Case(IMAGE)],
    "ArgMin": [Case(IMAGE, axis=2, select_last_index=1)],
    "LayerNormalization": [
        Case((2, 4, 6), constants=NORM),
        Case((2, 4, 6), constants=at(_1=random(4, 6)), axis=1),
    ],
    "Relu": [Case(IMAGE)],
    "LeakyRelu": [Case(IMAGE, alpha=0.07), Case(IMAGE, alpha=-0.2)],
    "PRelu": [
        Case(IMAGE, constants=at(_1=random(6, 1, 1))),
        Case(IMAGE, constants=at(_1=random(1))),
        Case(IMAGE, constants=at(_1=random(6, 4, 4))),
    ],
    "Clip": [
        Case(IMAGE, constants=at(_1=scalar(0), _2=scalar(1))),
        Case(IMAGE, constants=at(_1=scalar(-0.7), _2=scalar(0.3))),
        Case(IMAGE, constants=at(_1=scalar(0))),
        Case(IMAGE, constants=at(_1=scalar(-math.inf), _2=scalar(0))),
        Case(IMAGE, None, constants=at(_2=scalar(0.5))),
        Case(IMAGE),
    ],
    "Sigmoid": [Case(IMAGE)],
    "HardSigmoid": [Case(IMAGE), Case(IMAGE, alpha=0.7, beta=0.1)],
    "HardSwish": [Case(IMAGE)],
    "Softmax": [Case(IMAGE, axis=1), Case(IMAGE)],
    "Tanh": [Case(IMAGE)],
    "Gelu": [Case(IMAGE), Case(IMAGE, approximate="tanh")],
    "Elu": [Case(IMAGE)],
    "Softplus": [Case(IMAGE)],
    "Exp": [Case(IMAGE)],
    "Erf": [Case(IMAGE)],
    "LSTM": [Case((4, 2, 5), constants=at(_1=random(1, 12, 5), _2=random(1, 12, 3)), hidden_size=3)],
    "GRU": [Case((4, 2, 5), constants=at(_1=random(1, 9, 5), _2=random(1, 9, 3)), hidden_size=3)],
    "Pow": [Case(IMAGE, constants=at(_1=scalar(2))), Case(IMAGE, constants=at(_1=scalar(0.3)))],
    "Sqrt": [Case(IMAGE)],
    "Log": [Case(IMAGE)],
    "Abs": [Case(IMAGE)],
    "Neg": [Case(IMAGE)],
    "Add": PAIR,
    "Sub": PAIR,
    "Sum": MANY,
    "Mean": MANY,
    "Max": MANY,
    "Min": MANY,
    "Where": [
        Case(None, IMAGE, IMAGE, constants=at(_0=random(6, 1, 1) > 0)),
        Case(None, IMAGE, constants=at(_0=random(*IMAGE) > 0, _2=random(6, 1, 1))),
    ],
    "Mul": PAIR,
    "Div": PAIR,
    "MaxPool": [Case(IMAGE, **POOL), Case((2, 6, 9), kernel_shape=[2], ceil_mode=1)],
    "AveragePool": [Case(IMAGE, **POOL), Case(IMAGE, kernel_shape=[2, 3]), Case(IMAGE, count_include_pad=1, **POOL)],
    "LpPool": [Case(IMAGE, **POOL), Case(IMAGE, p=1, **POOL), Case(IMAGE, p=3, **POOL)],
    "GlobalAveragePool": [Case(IMAGE)],
    "GlobalMaxPool": [Case(IMAGE)],
    "ReduceMean": reductions(attribute=False),
    "ReduceSum": reductions(attribute=False),
    "ReduceMax": reductions(attribute=False),
    "ReduceMin": reductions(attribute=False),
    "ReduceL1": reductions(attribute=False),
    "ReduceL2": reductions(attribute=False),
    "ReduceSumSquare": reductions(attribute=False),
    "Pad": [
        Case(IMAGE, constants=at(_1=ints(0, 0, 1, 2, 0, 0, 0, 1))),
        Case(IMAGE, constants=at(_1=ints(0, 1, 0, 0, 0, 0, 0, 0), _2=scalar(0))),
        Case(IMAGE, constants=at(_1=ints(0, 0, -1, 0, 0, 0, 0, 0))),
        Case(IMAGE, constants=at(_1=ints(0, 0, 1, 1, 0, 0, 1, 1)), mode="reflect"),
        Case(IMAGE, constants=at(_1=ints(0, 1, 1, 1, 0, 0, 1, 1)), mode="edge"),
    ],
    "Resize": [
        Case(IMAGE, None, constants=at(_2=floats(1, 1, 2, 1.5)), mode="nearest"),
        Case(IMAGE, None, constants=at(_2=floats(1, 2, 1, 1)), mode="nearest"),
        Case(IMAGE, None, None, constants=at(_3=ints(2, 6, 3, 7)), mode="linear"),
        Case(IMAGE, None, constants=at(_2=floats(1, 1, 1.2, 2)), mode="linear"),
        Case(IMAGE, None, constants=at(_2=floats(1, 1, 2, 2)), mode="cubic"),
        Case(
            IMAGE, constants=at(_1=floats(0, 0, 0.3, 0, 1, 1, 0.8, 1), _3=ints(2, 6, 4, 9)),
            mode="linear", coordinate_transformation_mode="tf_crop_and_resize",
        ),
    ],
    "Identity": [Case(IMAGE)],
    "Dropout": [Case(IMAGE), Case(IMAGE, constants=at(_1=scalar(0.7)))],
    "Concat": [Case(IMAGE, (2, 3, 4, 4), axis=1), Case(IMAGE, IMAGE, axis=-1)],
    "Split": [Case(IMAGE, axis=1, num_outputs=2), Case(IMAGE, constants=at(_1=ints(1, 3)), axis=2)],
    "Slice": [
        Case(IMAGE, constants=at(_1=ints(4, 1), _2=ints(-9, 3), _3=ints(1, 2), _4=ints(-2, 1)))
    ],
    "Gather": [
        Case(IMAGE, constants=at(_1=ints(5, 0, 5)), axis=1),
        Case(IMAGE, constants=at(_1=np.array(2)), axis=1),
    ],
    "Flatten": [Case(IMAGE), Case(IMAGE, axis=2)],
    "Reshape": [Case(IMAGE, constants=at(_1=ints(0, 3, -1)))],
    "Transpose": [Case(IMAGE, perm=[0, 2, 3, 1]), Case(IMAGE)],
    "Squeeze": [Case((2, 6, 1, 1), constants=at(_1=ints(2, 3))), Case((2, 6, 1))],
    "Unsqueeze": [Case(IMAGE, constants=at(_1=ints(1, 3)))],
    "Expand": [Case((2, 6, 1, 1), constants=at(_1=ints(2, 6, 4, 3)))],
    "DepthToSpace": [
        Case((2, 8, 3, 3), blocksize=2, mode="DCR"), Case((2, 8, 3, 3), blocksize=2, mode="CRD")
    ],
    "SpaceToDepth": [Case(IMAGE, blocksize=2)],
    "Shape": [Case(IMAGE)],
    "Size": [Case(IMAGE)],
}  # fmt: skip


class Fixture:
    """The model of one case, with everything float a graph input or an initializer."""

    def __init__(self, op_type, case):
        self.case, self.op_type = case, op_type
        length = max([len(case.shapes), *(p + 1 for p in case.constants)])
        shapes = [*case.shapes, *[None] * (length - len(case.shapes))]
        names, inputs, constants = [], [], []
        for position, shape in enumerate(shapes):
            name = f"x{position}"
            if position in case.constants:
                value = np.asarray(case.constants[position])
                constants.append(numpy_helper.from_array(value, name))
            elif shape is not None:
                inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
            else:
                name = ""
            names.append(name)
        outputs = ["y0", "y1"] if op_type == "Split" else ["y0"]
        node = helper.make_node(op_type, names, outputs, name="node", **case.attributes)
        integer = op_type in {"Shape", "Size", "ArgMax", "ArgMin"}
        kind = TensorProto.INT64 if integer else TensorProto.FLOAT
        infos = [helper.make_tensor_value_info(name, kind, None) for name in outputs]
        graph = helper.make_graph([node], "case", inputs, infos, initializer=constants)
        opset = [helper.make_opsetid("", OPSETS.get(op_type, 17))]
        proto = helper.make_model(graph, opset_imports=opset, ir_version=8)
        self.model = infer_shapes(Model(proto))
        self.graph = Graph(self.model)
        self.node = self.graph.nodes[0]
        self.row = operator_of(self.node)
        self.activations = [f"x{p}" for p, s in enumerate(case.shapes) if s is not None]

    def feeds(self, seed=0):
        rng = np.random.default_rng(seed)
        return {
            spec.name: rng.standard_normal(spec.shape).astype(np.float32)
            for spec in self.model.inputs
        }

    def run(self, feeds, constants=None, **attributes):
        """Outputs for inputs and, if given, other constants."""
        proto = type(self.model.proto)()
        proto.CopyFrom(self.model.proto)
        for tensor in proto.graph.initializer:
            if constants and tensor.name in constants:
                value = np.asarray(constants[tensor.name])
                tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        return run(open_session(proto, optimize=False), None, feeds)
