"""Build small models by hand, node by node."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxq.model.model import Model
from onnxq.model.normalize import normalize


class Builder:
    """Nodes, weights and shapes of a model in the making; tensors are their names.

    `shapes` holds the sizes after the batch axis.
    """

    def __init__(self, seed=0, *, opset=17, batch="N", spread=3):
        self.rng = np.random.default_rng(seed)
        self.opset, self.batch, self.spread = opset, batch, spread
        self.nodes, self.inputs, self.initializers = [], [], []
        self.shapes, self.count = {}, 0

    def name(self, stem):
        self.count += 1
        return f"{stem.lower()}{self.count}"

    def input(self, *shape, name="x"):
        self.shapes[name] = shape
        self.inputs.append(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [self.batch, *shape])
        )
        return name

    def const(self, values, name=None, *, dtype=np.float32):
        name = name or self.name("const")
        values = np.asarray(values, dtype if np.asarray(values).dtype.kind == "f" else None)
        self.initializers.append(numpy_helper.from_array(values, name))
        return name

    def ints(self, *values):
        return self.const(np.array(values, np.int64))

    def constant_node(self, values):
        out = self.name("value")
        tensor = numpy_helper.from_array(np.asarray(values, np.float32))
        self.nodes.append(helper.make_node("Constant", [], [out], name=out, value=tensor))
        return out

    def random(self, *shape, scale=1.0):
        """Values whose channels differ in size, as those of a badly trained layer."""
        values = self.rng.standard_normal(shape) * scale
        if len(shape) > 1:
            spread = np.exp2(
                self.rng.uniform(-self.spread, self.spread, (shape[0],) + (1,) * (len(shape) - 1))
            )
            values = values * spread
        return values.astype(np.float32)

    def op(self, op_type, *inputs, shape=None, outputs=1, name=None, shapes=None, **attributes):
        name = name or self.name(op_type)
        names = [name] if outputs == 1 else [f"{name}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op_type, list(inputs), names, name=name, **attributes))
        if shapes is None:
            shapes = [shape if shape is not None else self.shapes.get(inputs[0])] * outputs
        self.shapes.update(zip(names, shapes, strict=True))
        return names[0] if outputs == 1 else names

    # --- weighted ------------------------------------------------------------------------------

    def conv(self, x, out, k=1, *, group=1, bias=True, stride=1, weight=None, name=None):
        c, h, w = self.shapes[x]
        if weight is None:
            fan = c // group * k * k
            weight = self.const(self.random(out, c // group, k, k, scale=fan**-0.5))
        parts = [x, weight, *([self.const(self.random(out))] if bias else [])]
        p = k // 2
        size = [(s + 2 * p - k) // stride + 1 for s in (h, w)]
        return self.op(
            "Conv", *parts, shape=(out, *size), name=name, group=group, pads=[p] * 4,
            kernel_shape=[k, k], strides=[stride, stride],
        )  # fmt: skip

    def conv_transpose(self, x, out, k=2, *, group=1, bias=True, name=None):
        c, h, w = self.shapes[x]
        weight = self.const(self.random(c, out // group, k, k, scale=(c // group) ** -0.5))
        parts = [x, weight, *([self.const(self.random(out))] if bias else [])]
        size = [(s - 1) * k + k for s in (h, w)]
        return self.op(
            "ConvTranspose", *parts, shape=(out, *size), name=name, group=group,
            kernel_shape=[k, k], strides=[k, k],
        )  # fmt: skip

    def gemm(self, x, out, *, trans_b=1, bias="vector", name=None, **attributes):
        (c,) = self.shapes[x]
        weight = self.random(out, c, scale=c**-0.5)
        weight = self.const(weight if trans_b else np.ascontiguousarray(weight.T))
        biases = {"vector": (out,), "row": (1, out), "scalar": ()}
        extra = [self.const(self.random(*biases[bias]))] if bias else []
        return self.op(
            "Gemm", x, weight, *extra, shape=(out,), name=name, transB=trans_b, **attributes
        )

    def matmul(self, x, out, *, name=None):
        *lead, c = self.shapes[x]
        weight = np.ascontiguousarray(self.random(out, c, scale=c**-0.5).T)
        return self.op("MatMul", x, self.const(weight), shape=(*lead, out), name=name)

    def batch_norm(self, x, *, name=None):
        c = self.shapes[x][0]
        parameters = [
            self.random(c), self.random(c), self.random(c),
            self.rng.uniform(0.5, 2, c).astype(np.float32),
        ]  # fmt: skip
        return self.op("BatchNormalization", x, *map(self.const, parameters), name=name)

    def clip(self, x, low=0.0, high=6.0, *, name=None, how=None):
        how = how or self.const
        bounds = ["" if b is None else how(np.float32(b)) for b in (low, high)]
        return self.op("Clip", x, *bounds, name=name)

    def head(self, x, out=3):
        """Global pool, flatten and a last layer: what lets scales stay free up to here."""
        if len(self.shapes[x]) == 3:
            c = self.shapes[x][0]
            x = self.op("GlobalAveragePool", x, shape=(c, 1, 1))
        if len(self.shapes[x]) > 1:
            x = self.op("Flatten", x, shape=(int(np.prod(self.shapes[x])),))
        return self.gemm(x, out)

    # --- the model -----------------------------------------------------------------------------

    def proto(self, *outputs):
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(
            self.nodes, "test", self.inputs, infos, initializer=self.initializers
        )
        opset = helper.make_opsetid("", self.opset)
        proto = helper.make_model(graph, opset_imports=[opset], ir_version=8)
        return onnx.shape_inference.infer_shapes(proto, data_prop=True)

    def model(self, *outputs):
        """The normalized model."""
        return normalize(Model(self.proto(*outputs)))[0]
