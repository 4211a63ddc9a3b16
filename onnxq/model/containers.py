"""Types of what is no tensor: a sequence or map of tensors, an optional value."""

from __future__ import annotations

from onnx import TensorProto, TypeProto

_WORDS = {
    "tensor_type": "tensor",
    "sparse_tensor_type": "sparse tensor",
    "sequence_type": "sequence",
    "map_type": "map",
    "optional_type": "optional value",
}


def container(kind: TypeProto) -> str:
    """What it is, such as "a sequence of maps"; "" for a tensor and for what is not said."""
    which = kind.WhichOneof("value")
    if which is None or which == "tensor_type":
        return ""
    inner = kind.sequence_type.elem_type.WhichOneof("value") if which == "sequence_type" else None
    of = f" of {_WORDS[inner]}s" if inner else ""
    return f"{'an' if which == 'optional_type' else 'a'} {_WORDS.get(which, which)}{of}"


def element_type(kind: TypeProto) -> int:
    """ONNX's number for the type of the values in it, at last; `UNDEFINED` if that is not said."""
    which = kind.WhichOneof("value")
    if which == "map_type":
        return element_type(kind.map_type.value_type)
    if which in {"sequence_type", "optional_type"}:
        return element_type(getattr(kind, which).elem_type)
    if which in {"tensor_type", "sparse_tensor_type"}:
        return int(getattr(kind, which).elem_type)
    return TensorProto.UNDEFINED
