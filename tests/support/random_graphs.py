"""Random models, drawn by hypothesis out of the operators of the table."""

import os
from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st
from onnxq.model.model import Model
from onnxq.model.normalize import normalize

from support.builder import Builder

GRAPHS = int(os.environ.get("ONNXQ_GRAPHS", "150"))
"""Random graphs a test draws at most: 150 by default, 500 in CI, 20000 in the slow run."""


@dataclass
class Growth:
    """A model that grows: `draw` decides, `builder` writes, `tensors` can still be read."""

    draw: object
    builder: Builder
    tensors: list = field(default_factory=list)

    def pick(self, *values):
        return self.draw(st.sampled_from(values))

    def shape(self, x):
        return self.builder.shapes[x]

    def same_shape(self, x):
        return [t for t in self.tensors if self.shape(t) == self.shape(x)]

    def partner(self, x):
        return self.draw(st.sampled_from(self.same_shape(x)))


def _channels(g, x):
    return g.shape(x)[0]


def _group(g, c, out):
    return g.pick(*[n for n in (1, 2, 3, c) if c % n == 0 and out % n == 0])


def _conv(g, x):
    b, c = g.builder, _channels(g, x)
    out = g.pick(2, 4, 6, 16, c)
    group, k = _group(g, c, out), g.pick(1, 3)
    shape = (out, c // group, k, k)
    same = [t.name for t in b.initializers if tuple(t.dims) == shape]
    weight = g.pick(None, *same[-1:])
    return b.conv(
        x, out, k, group=group, bias=g.pick(True, False), stride=g.pick(1, 2), weight=weight
    )


def _depthwise(g, x):
    c = _channels(g, x)
    return g.builder.conv(x, c * g.pick(1, 2), 3, group=c)


def _conv_transpose(g, x):
    c = _channels(g, x)
    out = g.pick(2, 4, 6)
    return g.builder.conv_transpose(x, out, group=_group(g, c, out), bias=g.pick(True, False))


def _activation(g, x):
    b = g.builder
    kind = g.pick("Relu", "LeakyRelu", "PRelu", "Abs", "Neg", "Identity", "Dropout")
    if kind == "PRelu":
        slope = b.random(*g.pick((1,), (_channels(g, x), *[1] * (len(g.shape(x)) - 1))))
        return b.op("PRelu", x, b.const(slope))
    return b.op(kind, x)


def _clip(g, x):
    b = g.builder
    low, high = g.pick((0.0, 6.0), (0.0, 1.0), (-1.0, 1.0), (0.0, None), (None, 6.0), (0.5, 2.0))
    return b.clip(x, low, high, how=g.pick(b.const, b.constant_node))


def _min_max(g, x):
    b = g.builder
    x = b.op("Max", x, b.const(np.float32(0)))
    return b.op("Min", x, b.const(np.float32(6)))


def _barrier(g, x):
    return g.builder.op(g.pick("Sigmoid", "HardSwish", "Tanh", "HardSigmoid"), x)


def _elementwise(g, x):
    b = g.builder
    other = g.partner(x)
    kind = g.pick("Add", "Add", "Sub", "Sum", "Mean", "Max", "Min", "Mul", "Where")
    if kind == "Where":
        mask = b.const(b.rng.random(g.shape(x)) > 0.5)
        return b.op("Where", mask, x, other, shape=g.shape(x))
    return b.op(kind, x, other)


def _with_constant(g, x):
    b = g.builder
    kind = g.pick("Add", "Sub", "Mul", "Div", "Max", "Min")
    full = g.shape(x)
    shape = g.pick((), (full[0], *[1] * (len(full) - 1)), full, (1,) * len(full))
    value = b.const(np.abs(b.random(*shape)) + np.float32(0.25))
    if kind != "Div" and g.pick(True, False):
        return b.op(kind, value, x, shape=full)
    return b.op(kind, x, value)


def _same_space(g, x):
    return [
        t
        for t in g.tensors
        if len(g.shape(t)) == len(g.shape(x)) and g.shape(t)[1:] == g.shape(x)[1:]
    ]


def _concat(g, x):
    b = g.builder
    other = g.draw(st.sampled_from(_same_space(g, x)))
    if g.shape(other) == g.shape(x) and len(g.shape(x)) == 3 and g.pick(True, False):
        c, h, w = g.shape(x)
        return b.op("Concat", x, other, shape=(c, h, 2 * w), axis=3)
    shape = (_channels(g, x) + _channels(g, other), *g.shape(x)[1:])
    return b.op("Concat", x, other, shape=shape, axis=1)


def _split(g, x):
    b, (c, *space) = g.builder, g.shape(x)
    first = g.draw(st.integers(1, c - 1))
    shapes = [(first, *space), (c - first, *space)]
    return b.op("Split", x, b.ints(first, c - first), outputs=2, shapes=shapes, axis=1)


def _slice(g, x):
    b, (c, *space) = g.builder, g.shape(x)
    start, step = g.draw(st.integers(0, c - 2)), g.pick(1, 2)
    size = len(range(start, c, step))
    parts = [b.ints(v) for v in (start, c, 1, step)]
    return b.op("Slice", x, *parts, shape=(size, *space))


def _gather(g, x):
    b, (c, *space) = g.builder, g.shape(x)
    indices = b.rng.integers(0, c, c)
    return b.op("Gather", x, b.ints(*indices), shape=(c, *space), axis=1)


def _shuffle(g, x):
    b, (c, h, w) = g.builder, g.shape(x)
    n = g.pick(*[n for n in (1, 2, 3) if c % n == 0])
    x = b.op("Reshape", x, b.ints(0, n, c // n, h, w), shape=(n, c // n, h, w))
    x = b.op("Transpose", x, shape=(c // n, n, h, w), perm=[0, 2, 1, 3, 4])
    return b.op("Reshape", x, b.ints(0, c, h, w), shape=(c, h, w))


def _pool(g, x):
    b, (c, h, w) = g.builder, g.shape(x)
    kind = g.pick("MaxPool", "AveragePool", "LpPool")
    extra = {"count_include_pad": g.pick(0, 1)} if kind == "AveragePool" else {}
    return b.op(kind, x, kernel_shape=[3, 3], pads=[1] * 4, shape=(c, h, w), **extra)


def _global_pool(g, x):
    kind = g.pick("GlobalAveragePool", "GlobalMaxPool")
    return g.builder.op(kind, x, shape=(_channels(g, x), 1, 1))


def _reduce(g, x):
    b, shape = g.builder, g.shape(x)
    kind = g.pick("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSum")
    axis = g.draw(st.integers(1, len(shape)))
    reduced = tuple(1 if i + 1 == axis else s for i, s in enumerate(shape))
    if kind == "ReduceSum":
        return b.op(kind, x, b.ints(axis), shape=reduced)
    return b.op(kind, x, axes=[axis], shape=reduced)


def _pad(g, x):
    b, (c, h, w) = g.builder, g.shape(x)
    mode = g.pick("constant", "edge", "reflect")
    front = g.pick(0, 0, 1) if c > 1 else 0
    if mode == "reflect" and min(h, w) < 2:
        mode = "edge"
    pads = b.ints(0, front, 1, 0, 0, 0, 0, 1)
    fill = [b.const(np.float32(g.pick(0.0, 0.0, 1.0)))] if mode == "constant" else []
    return b.op("Pad", x, pads, *fill, shape=(c + front, h + 1, w + 1), mode=mode)


def _resize(g, x):
    b, (c, h, w) = g.builder, g.shape(x)
    mode = g.pick("nearest", "linear")
    scales = b.const(np.array([1, 1, 2, 2], np.float32))
    return b.op("Resize", x, "", scales, shape=(c, 2 * h, 2 * w), mode=mode)


def _to_sequence(g, x):
    """[N, C, H, W] → [N, H·W, C]."""
    b, (c, h, w) = g.builder, g.shape(x)
    x = b.op("Reshape", x, b.ints(0, c, -1), shape=(c, h * w))
    return b.op("Transpose", x, perm=[0, 2, 1], shape=(h * w, c))


def _transpose(g, x):
    shape = g.shape(x)
    order = g.draw(st.permutations(range(len(shape))))
    perm = [0, *(i + 1 for i in order)]
    return g.builder.op("Transpose", x, perm=perm, shape=tuple(shape[i] for i in order))


def _flatten(g, x):
    return g.builder.op("Flatten", x, shape=(int(np.prod(g.shape(x))),))


def _view(g, x):
    """x.view(x.size(0), -1): a target shape computed at run time."""
    b = g.builder
    batch = b.op("Gather", b.op("Shape", x, shape=()), b.ints(0), shape=())
    target = b.op("Concat", batch, b.ints(-1), axis=0, shape=())
    return b.op("Reshape", x, target, shape=(int(np.prod(g.shape(x))),))


def _depth_to_space(g, x):
    b, (c, h, w) = g.builder, g.shape(x)
    mode = g.pick("DCR", "CRD")
    return b.op("DepthToSpace", x, blocksize=2, mode=mode, shape=(c // 4, 2 * h, 2 * w))


def _space_to_depth(g, x):
    c, h, w = g.shape(x)
    return g.builder.op("SpaceToDepth", x, blocksize=2, shape=(4 * c, h // 2, w // 2))


def _batch_norm(g, x):
    return g.builder.batch_norm(x)


def _instance_norm(g, x):
    b, c = g.builder, _channels(g, x)
    return b.op("InstanceNormalization", x, b.const(b.random(c)), b.const(b.random(c)))


def _layer_norm(g, x):
    b, shape = g.builder, g.shape(x)
    size = shape[-1]
    if size == 1:  # ONNX Runtime before 1.24 refuses to normalize a single element
        return b.op("Relu", x)
    return b.op("LayerNormalization", x, b.const(b.random(size)), b.const(b.random(size)), axis=-1)


def _squeeze_excite(g, x):
    b, (c, _, _) = g.builder, g.shape(x)
    gate = b.op("GlobalAveragePool", x, shape=(c, 1, 1))
    gate = b.op("Relu", b.conv(gate, 2))
    gate = b.op("Sigmoid", b.conv(gate, c))
    return b.op("Mul", x, gate)


def _unsqueeze(g, x):
    b, shape = g.builder, g.shape(x)
    return b.op("Unsqueeze", x, b.ints(2), shape=(shape[0], 1, *shape[1:]))


def _gemm(g, x):
    return g.builder.gemm(
        x, g.pick(2, 4, 6), trans_b=g.pick(0, 1), bias=g.pick("vector", "row", "scalar", None),
        alpha=g.pick(1.0, 0.5), beta=g.pick(1.0, 2.0),
    )  # fmt: skip


def _matmul(g, x):
    b, out = g.builder, g.pick(2, 4, 6)
    x = b.matmul(x, out)
    return b.op("Add", x, b.const(b.random(out))) if g.pick(True, False) else x


def _attention(g, x):
    """softmax(Q·Kᵀ)·V over [N, L, C]."""
    b, (length, c) = g.builder, g.shape(x)
    q, k, v = (b.matmul(x, c) for _ in range(3))
    k = b.op("Transpose", k, perm=[0, 2, 1], shape=(c, length))
    weights = b.op("Softmax", b.op("MatMul", q, k, shape=(length, length)), axis=-1)
    return b.matmul(b.op("MatMul", weights, v, shape=(length, c)), c)


_ANY = (_activation, _activation, _clip, _min_max, _barrier, _elementwise, _elementwise,
        _with_constant, _concat, _reduce, _transpose)  # fmt: skip
_IMAGE = (_conv, _conv, _conv, _depthwise, _conv_transpose, _pool, _global_pool, _pad, _resize,
          _shuffle, _to_sequence, _flatten, _view, _batch_norm, _instance_norm,
          _squeeze_excite, _layer_norm)  # fmt: skip
_LARGEST = 1024


def _steps(shape):
    steps = [*_ANY]
    if shape[0] > 1:
        steps += [_split, _slice, _gather]
    if len(shape) == 3:
        steps += _IMAGE
        if shape[0] % 4 == 0:
            steps.append(_depth_to_space)
        if shape[1] % 2 == 0 and shape[2] % 2 == 0:
            steps.append(_space_to_depth)
    if len(shape) == 2:
        steps += [_matmul, _layer_norm, _attention, _flatten, _unsqueeze, _batch_norm]
    if len(shape) == 1:
        steps += [_gemm, _gemm, _matmul, _layer_norm, _batch_norm]
    return steps


@st.composite
def random_protos(draw, max_steps=12, spread=3):
    """A model as a file would hold it: batch norms unfolded, Constant nodes, mid-chain outputs."""
    builder = Builder(
        draw(st.integers(0, 2**16)), batch=draw(st.sampled_from(["N", 2])), spread=spread
    )
    g = Growth(draw, builder)
    c = draw(st.sampled_from([2, 3, 4, 16]))
    g.tensors.append(_conv(g, builder.input(c, 4, 4)))
    read = set()
    outputs = []
    for _ in range(draw(st.integers(1, max_steps))):
        x = draw(st.sampled_from(g.tensors[-3:]))
        step = draw(st.sampled_from(_steps(g.shape(x))))
        before = len(builder.nodes)
        made = step(g, x)
        made = [made] if isinstance(made, str) else made
        read |= {name for node in builder.nodes[before:] for name in node.input}
        g.tensors += [t for t in made if np.prod(g.shape(t)) <= _LARGEST]
        outputs += [t for t in made if np.prod(g.shape(t)) > _LARGEST]
        if draw(st.integers(0, 9)) == 0:
            outputs.append(draw(st.sampled_from(made)))
    ends = [t for t in g.tensors if t not in read and t not in outputs]
    outputs = list(dict.fromkeys(outputs)) + [builder.head(t) for t in ends]
    return builder.proto(*outputs)


@st.composite
def random_models(draw, max_steps=12, spread=3):
    """The same, normalized."""
    return normalize(Model(draw(random_protos(max_steps, spread))))[0]


def random_feeds(model, seed=0, batch=2):
    rng = np.random.default_rng(seed)
    return {
        spec.name: rng.standard_normal(
            [s if isinstance(s, int) else batch for s in spec.shape], np.float32
        )
        for spec in model.inputs
    }
