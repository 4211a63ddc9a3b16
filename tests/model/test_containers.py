"""What outputs of every type are, and what they hold."""

import pytest
from onnx import TensorProto, TypeProto, helper
from onnxq.model.containers import container, element_type

HALF = helper.make_tensor_type_proto(TensorProto.FLOAT16, ["N", 2])
MAP = helper.make_map_type_proto(TensorProto.STRING, HALF)


@pytest.mark.parametrize(
    ("kind", "what", "holds"),
    [
        (HALF, "", TensorProto.FLOAT16),
        (MAP, "a map", TensorProto.FLOAT16),
        (helper.make_sequence_type_proto(MAP), "a sequence of maps", TensorProto.FLOAT16),
        (helper.make_sequence_type_proto(HALF), "a sequence of tensors", TensorProto.FLOAT16),
        (
            helper.make_optional_type_proto(helper.make_sequence_type_proto(HALF)),
            "an optional value",
            TensorProto.FLOAT16,
        ),
        (
            helper.make_sparse_tensor_type_proto(TensorProto.INT32, [3]),
            "a sparse tensor",
            TensorProto.INT32,
        ),
        (TypeProto(), "", TensorProto.UNDEFINED),
    ],
)
def test_types(kind, what, holds):
    assert container(kind) == what
    assert element_type(kind) == holds
