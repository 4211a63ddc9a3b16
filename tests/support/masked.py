"""A small encoder with a mask, on its samples with padding and without."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxq.model.model import Model

WIDTH = 16
LENGTH = 12


def encoder(*, tokens="T", batch="N", mask=TensorProto.INT64, flat=False):
    """x N×T×16 and attention_mask N×T → y N×T×6 and its mean over the real tokens, N×6.

    Args:
        tokens, batch: sizes of the axes; numbers where the model is of fixed length.
        flat: the last layer multiplies (N·T)×16, as exporters of TensorFlow write it.
    """
    rng = np.random.default_rng(3)
    weights = {
        "v": rng.standard_normal((WIDTH, WIDTH)) / 4, "w": rng.standard_normal((WIDTH, 6)) / 4,
        "u": rng.standard_normal((WIDTH, WIDTH)) / 4, "b": rng.standard_normal(6),
        "one": np.array(1.0), "far": np.array(-1e4),
    }  # fmt: skip
    initializers = [numpy_helper.from_array(v.astype(np.float32), n) for n, v in weights.items()]
    integers = {"axis1": [1], "axis2": [2], "rows": [-1, WIDTH], "like": [0, -1, 6]}
    initializers += [numpy_helper.from_array(np.array(v, np.int64), n) for n, v in integers.items()]

    def node(kind, inputs, output, **attributes):
        return helper.make_node(kind, inputs.split(), [output], name=output, **attributes)

    last = [node("MatMul", "u1 w", "h"), node("Add", "h b", "y")]
    if flat:
        # A batch of rows, brought back to the shape of x but for its last axis.
        initializers.append(numpy_helper.from_array(np.array([6], np.int64), "six"))
        last = [
            node("Reshape", "u1 rows", "u2"), node("MatMul", "u2 w", "h2"),
            node("Shape", "x", "shape", end=2), node("Concat", "shape six", "back", axis=0),
            node("Reshape", "h2 back", "h"), node("Add", "h b", "y"),
        ]  # fmt: skip
    nodes = [
        node("Cast", "attention_mask", "m", to=TensorProto.FLOAT),
        node("Sub", "one m", "padding"), node("Mul", "padding far", "away"),
        node("Unsqueeze", "away axis1", "bias"),
        node("Transpose", "x", "turned", perm=[0, 2, 1]), node("MatMul", "x turned", "scores"),
        node("Add", "scores bias", "biased"), node("Softmax", "biased", "weights", axis=-1),
        node("MatMul", "x v", "values"), node("MatMul", "weights values", "mixed"),
        node("MatMul", "mixed u", "u0"), node("Relu", "u0", "u1"), *last,
        node("Unsqueeze", "m axis2", "m1"), node("Mul", "y m1", "kept"),
        node("ReduceSum", "kept axis1", "total", keepdims=0),
        node("ReduceSum", "m1 axis1", "count", keepdims=0), node("Div", "total count", "mean"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "encoder",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, tokens, WIDTH]),
         helper.make_tensor_value_info("attention_mask", mask, [batch, tokens])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, tokens, 6]),
         helper.make_tensor_value_info("mean", TensorProto.FLOAT, [batch, 6])],
        initializers,
    )  # fmt: skip
    opset = helper.make_opsetid("", 17)
    return Model(onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=[opset], ir_version=8)
    ))  # fmt: skip


def sentences(count, seed=0):
    """Samples of their own length, 2 to 11 tokens."""
    rng = np.random.default_rng(seed)
    return [
        rng.standard_normal((int(rng.integers(2, LENGTH)), WIDTH)).astype(np.float32)
        for _ in range(count)
    ]


def padded(samples, *, kind=np.int64, value=30.0, left=False):
    """All samples with 12 tokens, those added full of one large value, and the mask."""
    x = np.full((len(samples), LENGTH, WIDTH), value, np.float32)
    mask = np.zeros((len(samples), LENGTH), kind)
    for row, sample in enumerate(samples):
        here = slice(LENGTH - len(sample), None) if left else slice(len(sample))
        x[row, here], mask[row, here] = sample, 1
    return {"x": x, "attention_mask": mask}


def save_feeds(samples, folder):
    """The samples without padding, as a folder of feeds in the same order."""
    folder.mkdir()
    for number, sample in enumerate(samples):
        mask = np.ones((1, len(sample)), np.int64)
        np.savez(folder / f"{number:04}.npz", x=sample[None], attention_mask=mask)
    return folder
