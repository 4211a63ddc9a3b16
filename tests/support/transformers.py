"""Small transformers with a planted outlier channel behind each norm and each activation.

Weights are random, not trained: the outlier and the columns that make up for it are put in by hand,
as large language models and sentence encoders have them. Feeds are `random_feeds`.
"""

import numpy as np

from support.activations import WRITTEN
from support.builder import Builder

WIDTH, HEADS, HIDDEN = 32, 4, 64
PLANTED, OUTLIER = 5, 64.0
"""Channel, and how many times as large it is as the others."""


def dense(b, x, out, *, behind=1.0, makes=1.0):
    """MatMul and bias. Its input's planted channel is `behind` times as large, its output's made
    `makes` times as large."""
    *lead, inputs = b.shapes[x]
    weight = b.random(inputs, out, scale=inputs**-0.5)
    weight[PLANTED] /= behind
    bias = b.random(out, scale=0.1)
    weight[:, PLANTED] *= makes
    bias[PLANTED] *= makes
    y = b.op("MatMul", x, b.const(weight), shape=(*lead, out))
    return b.op("Add", y, b.const(bias))


def norm(b, x, op_type="LayerNormalization"):
    gain = np.ones(b.shapes[x][-1], np.float32)
    gain[PLANTED] = OUTLIER
    bias = [b.const(b.random(len(gain), scale=0.1))] if op_type == "LayerNormalization" else []
    return b.op(op_type, x, b.const(gain), *bias, axis=-1)


def split_heads(b, x):
    length, width = b.shapes[x]
    size = width // HEADS
    x = b.op("Reshape", x, b.ints(0, 0, HEADS, size), shape=(length, HEADS, size))
    return b.op("Transpose", x, perm=[0, 2, 1, 3], shape=(HEADS, length, size))


def join_heads(b, x):
    heads, length, size = b.shapes[x]
    x = b.op("Transpose", x, perm=[0, 2, 1, 3], shape=(length, heads, size))
    return b.op("Reshape", x, b.ints(0, 0, heads * size), shape=(length, heads * size))


def attention(b, x, *, mask=None, past=()):
    """Softmax(Q·Kᵀ/√d + mask)·V and its projection.

    Args:
        past: names of keys and values (heads, length, size) of steps before.
    """
    q, k, v = (split_heads(b, dense(b, x, WIDTH, behind=OUTLIER)) for _ in range(3))
    if past:
        length = b.shapes[past[0]][1] + b.shapes[k][1]
        shape = (HEADS, length, WIDTH // HEADS)
        k, v = (b.op("Concat", old, new, axis=2, shape=shape)
                for old, new in zip(past, (k, v), strict=True))  # fmt: skip
    keys = b.op("Transpose", k, perm=[0, 1, 3, 2], shape=(HEADS, WIDTH // HEADS, b.shapes[k][1]))
    scores = b.op("MatMul", q, keys, shape=(HEADS, b.shapes[q][1], b.shapes[k][1]))
    scores = b.op("Mul", scores, b.const(np.float32((WIDTH // HEADS) ** -0.5)))
    if mask is not None:
        scores = b.op("Add", scores, b.const(mask))
    shape = (HEADS, b.shapes[q][1], WIDTH // HEADS)
    mixed = b.op("MatMul", b.op("Softmax", scores, axis=-1), v, shape=shape)
    return dense(b, join_heads(b, mixed), WIDTH)


def block(b, x, *, activation="gelu", normalization="LayerNormalization", **heads):
    """Norm, attention, norm, two layers; each pair around the residual stream."""
    x = b.op("Add", x, attention(b, norm(b, x, normalization), **heads))
    y = dense(b, norm(b, x, normalization), HIDDEN, behind=OUTLIER, makes=OUTLIER)
    y = WRITTEN[activation](b, y)
    return b.op("Add", x, dense(b, y, WIDTH, behind=OUTLIER))


def vision_transformer(blocks=2):
    """A convolution of patches, a class token in front of them, blocks, a head on the token."""
    b = Builder(1, spread=0)
    image = b.input(3, 16, 16)
    weight = b.const(b.random(WIDTH, 3, 4, 4, scale=48**-0.5))
    x = b.op("Conv", image, weight, strides=[4, 4], shape=(WIDTH, 4, 4))
    x = b.op("Reshape", x, b.ints(0, WIDTH, 16), shape=(WIDTH, 16))
    x = b.op("Transpose", x, perm=[0, 2, 1], shape=(16, WIDTH))
    batch = b.op("Slice", b.op("Shape", image), b.ints(0), b.ints(1))
    token = b.op("Expand", b.const(b.random(1, 1, WIDTH)), b.op("Concat", batch, b.ints(1, WIDTH), axis=0))  # fmt: skip
    x = b.op("Concat", token, x, axis=1, shape=(17, WIDTH))
    x = b.op("Add", x, b.const(b.random(17, WIDTH)))
    for _ in range(blocks):
        x = block(b, x)
    x = b.op("Gather", norm(b, x), b.const(np.array(0)), axis=1, shape=(WIDTH,))
    return b.model(dense(b, x, 10, behind=OUTLIER))


def speech_encoder(blocks=2, activation="gelu"):
    """Two convolutions along the time, an activation behind each, then blocks."""
    b = Builder(2, spread=0)
    x, inputs, length = b.input(8, 32), 8, 32
    for stride in (1, 2):
        weight = b.random(WIDTH, inputs, 3, scale=(3 * inputs) ** -0.5)
        length //= stride
        x = b.op("Conv", x, b.const(weight), b.const(b.random(WIDTH)), pads=[1, 1],
                 strides=[stride], shape=(WIDTH, length))  # fmt: skip
        x, inputs = WRITTEN[activation](b, x), WIDTH
    x = b.op("Transpose", x, perm=[0, 2, 1], shape=(length, WIDTH))
    x = b.op("Add", x, b.const(b.random(length, WIDTH)))
    for _ in range(blocks):
        x = block(b, x)
    return b.model(dense(b, norm(b, x), 8, behind=OUTLIER))


def decoder(blocks=2):
    """Blocks with a causal mask over keys and values of steps before and of these."""
    b = Builder(3, spread=0)
    now, before, size = 8, 6, WIDTH // HEADS
    x = b.input(now, WIDTH)
    mask = np.triu(np.full((now, before + now), -1e4, np.float32), before + 1)
    for number in range(blocks):
        past = [b.input(HEADS, before, size, name=f"{kind}{number}") for kind in ("key", "value")]
        x = block(b, x, mask=mask, past=past, activation="silu")
    return b.model(dense(b, norm(b, x), 16, behind=OUTLIER))


def post_norm_encoder(blocks=2):
    """The norms behind the layers, as in BERT, where they feed the residual stream too."""
    b = Builder(4, spread=0)
    x = norm(b, b.input(8, WIDTH))
    for _ in range(blocks):
        x = norm(b, b.op("Add", x, attention(b, x)))
        y = dense(b, x, HIDDEN, behind=OUTLIER, makes=OUTLIER)
        y = dense(b, WRITTEN["gelu"](b, y), WIDTH, behind=OUTLIER)
        x = norm(b, b.op("Add", x, y))
    return b.model(dense(b, x, 8, behind=OUTLIER))


TRANSFORMERS = {
    "vision transformer": vision_transformer,
    "speech encoder": speech_encoder,
    "decoder with past": decoder,
    "norms behind the layers": post_norm_encoder,
}
