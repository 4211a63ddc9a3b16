"""Random scales on every free class, and the bits of the float outputs."""

import numpy as np
import onnxruntime as ort
from onnxq.equalization.apply import apply_scales
from onnxq.equalization.classes import find_classes
from onnxq.errors import ModelError
from onnxq.model.graph import Graph
from onnxq.model.session import exact_equal, open_session, run

from support.random_graphs import random_feeds


def outputs(model, feeds, *, optimize):
    return run(open_session(model, optimize=optimize, threads=1), None, feeds)


def runnable(model):
    """False for a model that an ONNX Runtime before 1.24 breaks by its own fusions.

    On newer ones every graph must run, so there nothing is passed over.
    """
    if tuple(int(part) for part in ort.__version__.split(".")[:2]) >= (1, 24):
        return True
    try:
        outputs(model, random_feeds(model), optimize=True)
    except ModelError:
        return False
    return True


def same_outputs(a, b, feeds, *, optimize):
    pairs = zip(
        outputs(a, feeds, optimize=optimize), outputs(b, feeds, optimize=optimize), strict=True
    )
    return all(exact_equal(x, y) for x, y in pairs)


def random_exponents(classes, seed=0, *, limit=3):
    rng = np.random.default_rng(seed)
    drawn = rng.integers(-limit, limit + 1, len(classes.free))
    return {int(root): float(value) for root, value in zip(classes.free, drawn, strict=True)}


def same_kernels(a, b):
    """Whether both run the same operators; a per-channel Min instead of a Clip may change what
    ONNX Runtime fuses and how it lays out what follows, and so the order of its sums."""
    first, second = (sorted(node.op_type for node in m.proto.graph.node) for m in (a, b))
    return first == second


def scale_randomly(model, seed=0):
    """(scaled model, kernels added, classes)."""
    graph = Graph(model)
    classes = find_classes(graph)
    scaled, added = apply_scales(graph, classes, random_exponents(classes, seed))
    return scaled, added, classes


def assert_exact(model, seeds=(0, 1), *, optimized=True):
    """Random powers of two on every free class leave every output bit as it was.

    Also after ONNX Runtime's optimizations, unless that is not `optimized` alike.
    """
    for seed in seeds:
        scaled, _, classes = scale_randomly(model, seed)
        feeds = random_feeds(model, seed)
        assert same_outputs(model, scaled, feeds, optimize=False)
        if optimized and same_kernels(model, scaled):
            assert same_outputs(model, scaled, feeds, optimize=True)
    return classes
