"""Heads of detectors in small: a trunk of two layers and what each family writes behind it.

Boxes are in pixels of a picture of 32×32, scores in 0…1, as trained heads have them.
"""

import numpy as np

from support.builder import Builder

SIDE, CLASSES, BINS = 8, 3, 16
PLACES = SIDE * SIDE


def trunk():
    """A builder and the features: 8 channels in 8×8 places."""
    b = Builder(3, batch=1, spread=0.5)
    x = b.op("Relu", b.conv(b.input(3, 32, 32), 8, 3, stride=2, name="stem"))
    return b, b.op("Relu", b.conv(x, 8, 3, stride=2, name="neck"))


def flat(b, x, channels):
    """N×C×H×W as N×C×A."""
    return b.op("Reshape", x, b.ints(1, channels, PLACES), shape=(channels, PLACES))


def grid(*, last):
    """Centers of the cells, 1×2×A or 1×A×2."""
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    centers = np.stack([columns.ravel(), rows.ravel()]).astype(np.float32)
    return (centers.T if last else centers)[None]


def part(b, x, start, end, *, axis=1):
    shape = list(b.shapes[x])
    shape[axis - 1] = end - start
    return b.op("Slice", x, b.ints(start), b.ints(end), b.ints(axis), shape=tuple(shape))


def dfl():
    """YOLOv8, 11: sides of a box are means over 16 bins; boxes over scores."""
    b, x = trunk()
    sides, classes = b.conv(x, 4 * BINS, name="boxes"), b.conv(x, CLASSES, name="classes")
    both = b.op("Concat", sides, classes, axis=1, shape=(4 * BINS + CLASSES, SIDE, SIDE))
    both = flat(b, both, 4 * BINS + CLASSES)
    sides, classes = part(b, both, 0, 4 * BINS), part(b, both, 4 * BINS, 4 * BINS + CLASSES)
    bins = b.op("Reshape", sides, b.ints(1, 4, BINS, PLACES), shape=(4, BINS, PLACES))
    bins = b.op("Transpose", bins, perm=[0, 2, 1, 3], shape=(BINS, 4, PLACES))
    weight = b.const(np.arange(BINS, dtype=np.float32).reshape(1, BINS, 1, 1))
    mean = b.conv(b.op("Softmax", bins, axis=1), 1, bias=False, weight=weight, name="mean")
    sides = b.op("Reshape", mean, b.ints(1, 4, PLACES), shape=(4, PLACES))
    low = b.op("Sub", b.const(grid(last=False)), part(b, sides, 0, 2), shape=(2, PLACES))
    high = b.op("Add", b.const(grid(last=False)), part(b, sides, 2, 4), shape=(2, PLACES))
    boxes = b.op("Concat", low, high, axis=1, shape=(4, PLACES))
    boxes = b.op("Mul", boxes, b.const(np.float32(4)), name="pixels")
    return b.proto(b.op("Concat", boxes, b.op("Sigmoid", classes, name="scores"), axis=1,
                        shape=(4 + CLASSES, PLACES), name="out"))  # fmt: skip


def anchors():
    """YOLOv5: one layer writes it all, behind a Sigmoid; centers by cells, sizes by anchors."""
    b, x = trunk()
    y = b.conv(x, 5 + CLASSES, name="last")
    y = b.op("Transpose", flat(b, y, 5 + CLASSES), perm=[0, 2, 1], shape=(PLACES, 5 + CLASSES))
    y = b.op("Sigmoid", y, name="scores")
    center, size = part(b, y, 0, 2, axis=2), part(b, y, 2, 4, axis=2)
    center = b.op("Add", b.op("Mul", center, b.const(np.float32(2))), b.const(grid(last=True)))
    center = b.op("Mul", center, b.const(np.float32(4)), name="pixels")
    size = b.op("Mul", b.op("Mul", size, size), b.const(np.float32([[[40, 60]]])), name="sizes")
    rest = part(b, y, 4, 5 + CLASSES, axis=2)
    return b.proto(b.op("Concat", center, size, rest, axis=2, shape=(PLACES, 5 + CLASSES),
                        name="out"))  # fmt: skip


def raw():
    """YOLOX: offsets and logarithms of sizes next to scores, which the caller decodes."""
    b, x = trunk()
    parts = [b.conv(x, 4, name="boxes"),
             b.op("Sigmoid", b.conv(x, 1, name="objects"), name="objectness"),
             b.op("Sigmoid", b.conv(x, CLASSES, name="classes"), name="scores")]  # fmt: skip
    both = b.op("Concat", *parts, axis=1, shape=(5 + CLASSES, SIDE, SIDE), name="joined")
    return b.proto(b.op("Transpose", flat(b, both, 5 + CLASSES), perm=[0, 2, 1], name="out"))


def priors():
    """SSD: offsets from prior boxes, Softmax over classes, suppression in the graph."""
    b, x = trunk()
    boxes = b.op("Transpose", flat(b, b.conv(x, 4, name="boxes"), 4), perm=[0, 2, 1],
                 shape=(PLACES, 4))  # fmt: skip
    logits = flat(b, b.conv(x, CLASSES, name="classes"), CLASSES)
    prior = b.const(grid(last=True) / SIDE)
    center = b.op("Mul", part(b, boxes, 0, 2, axis=2), b.const(np.float32(0.02)))
    center = b.op("Add", center, prior, name="centers")
    size = b.op("Exp", b.op("Mul", part(b, boxes, 2, 4, axis=2), b.const(np.float32(0.04))))
    half = b.op("Mul", size, b.const(np.float32(0.15)), name="halves")
    low, high = b.op("Sub", center, half), b.op("Add", center, half, name="high")
    boxes = b.op("Concat", low, high, axis=2, shape=(PLACES, 4), name="corners")
    scores = b.op("Softmax", logits, axis=1, name="scores")
    kept = b.op("NonMaxSuppression", boxes, scores, b.ints(20), b.const(np.float32([0.5])),
                b.const(np.float32([0.1])), shape=(), name="kept")  # fmt: skip
    best = b.op("Gather", boxes, part_of(b, kept), axis=1, name="best")
    return b.proto("corners", "scores", best)


def part_of(b, kept):
    """Which boxes a suppression kept."""
    return b.op("Gather", kept, b.const(np.int64(2), dtype=None), axis=1, shape=(), name="taken")


def queries():
    """DETR and RT-DETR: boxes are refined, layer by layer, and the next layer reads them."""
    b, x = trunk()
    states = b.op("Transpose", flat(b, x, 8), perm=[0, 2, 1], shape=(PLACES, 8), name="states")
    anchor = b.const(np.tile(grid(last=True) / SIDE, (1, 1, 2)) - 0.5)
    logits = b.op("Add", b.matmul(states, 4, name="proposal"), anchor, name="anchored")
    for number in range(3):
        reference = b.op("Sigmoid", logits, name=f"reference{number}")
        states = b.op("Relu", b.op("Add", states, b.matmul(reference, 8, name=f"place{number}")))
        states = b.op("Relu", b.matmul(states, 8, name=f"layer{number}"))
        logits = b.op("Add", b.matmul(states, 4, name=f"change{number}"), logits,
                      name=f"refined{number}")  # fmt: skip
    boxes = b.op("Sigmoid", logits, name="coordinates")
    scores = b.op("Sigmoid", b.matmul(states, CLASSES, name="classes"), name="scores")
    return b.proto(boxes, scores)


def end_to_end():
    """YOLO26: distances from cells, and of all boxes those of the best scores."""
    b, x = trunk()
    sides = flat(b, b.op("Relu", b.conv(x, 4, name="boxes")), 4)
    low = b.op("Sub", b.const(grid(last=False)), part(b, sides, 0, 2), shape=(2, PLACES))
    high = b.op("Add", b.const(grid(last=False)), part(b, sides, 2, 4), shape=(2, PLACES))
    boxes = b.op("Concat", low, high, axis=1, shape=(4, PLACES))
    boxes = b.op("Mul", boxes, b.const(np.float32(4)), name="pixels")
    scores = b.op("Sigmoid", flat(b, b.conv(x, CLASSES, name="classes"), CLASSES), name="scores")
    best = b.op("ReduceMax", scores, axes=[1], keepdims=0, shape=(PLACES,), name="best")
    values, places = b.op("TopK", best, b.ints(10), outputs=2, shape=(10,), name="chosen")
    taken = b.op("Gather", boxes, b.op("Reshape", places, b.ints(10), shape=(10,)), axis=2,
                 shape=(4, 10), name="taken")  # fmt: skip
    values = b.op("Reshape", values, b.ints(1, 1, 10), shape=(1, 10))
    return b.proto(b.op("Concat", taken, values, axis=1, shape=(5, 10), name="out"), "pixels",
                   "scores")  # fmt: skip


HEADS = {head.__name__: head for head in (dfl, anchors, raw, priors, queries, end_to_end)}
