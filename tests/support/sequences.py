"""A model that has sequences inside."""

import numpy as np
from onnx import TensorProto, helper
from onnxq.model.files import infer_shapes
from onnxq.model.model import Model

from support.builder import Builder


def of_sequences():
    """A sequence that layers of several pieces read, and one that a Loop gives beside a tensor."""
    b = Builder(2)
    x = b.op("Relu", b.conv(b.input(3, 6, 6), 8, 3, name="c1"), name="r1")
    parts = b.op("SplitToSequence", x, b.ints(4, 4), axis=1, name="parts")
    halves = [
        b.conv(b.op("SequenceAt", parts, b.const(np.int64(i)), shape=(4, 6, 6)), 4, name=f"half{i}")
        for i in range(2)
    ]
    node, info = helper.make_node, helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("Neg", ["now"], ["next"]),
         node("SequenceInsert", ["kept", "next"], ["more"])], "body",
        [info("step", TensorProto.INT64, []), info("go", TensorProto.BOOL, []),
         info("now", TensorProto.FLOAT, None),
         helper.make_tensor_sequence_value_info("kept", TensorProto.FLOAT, None)],
        [info("on", TensorProto.BOOL, []), info("next", TensorProto.FLOAT, None),
         helper.make_tensor_sequence_value_info("more", TensorProto.FLOAT, None)],
    )  # fmt: skip
    both = b.op("SequenceConstruct", *halves, name="both")
    steps = b.op("Loop", b.const(np.int64(3)), "", halves[0], both, outputs=2, name="loop",
                 body=body, shapes=[(4, 6, 6), None])  # fmt: skip
    all_of = b.op("ConcatFromSequence", steps[1], shape=(20, 6, 6), axis=1)
    first = b.op("SequenceAt", steps[1], b.const(np.int64(0)), shape=(4, 6, 6))
    sums = [b.conv(each, 4, name=f"sum{i}") for i, each in enumerate((all_of, first, steps[0]))]
    return infer_shapes(Model(b.proto(b.op("Sum", *sums, name="y"))))
