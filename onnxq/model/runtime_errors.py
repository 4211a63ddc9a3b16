"""ONNX Runtime's exceptions, which share no base class of their own, as errors of onnxq."""

from __future__ import annotations

import re

from onnxq.errors import ModelError, OnnxqError, ResourceError

EXHAUSTED = ("Failed to allocate memory", "bad_alloc", "bad allocation", "smaller than requested")
"""What ONNX Runtime says of memory that it did not get, as part of messages about other things."""

NO_MEMORY = "there is not enough memory to run the model"


def refused(error: Exception) -> OnnxqError:
    """Why no session was opened."""
    if _is_exhausted(error):
        return ResourceError(NO_MEMORY)
    reason = reason_of(error)
    foreign = re.search(r"(\S+?)(?:\(-?\d+\))? is not a registered function/op", reason)
    if foreign:
        return ModelError(
            f"ONNX Runtime refuses the model: it does not know the operator {foreign[1]}",
            hint="give the library that holds it with --custom-op-library",
        )
    return ModelError(f"ONNX Runtime refuses the model: {reason}")


def failed(error: Exception) -> OnnxqError:
    """Why a run did not end well."""
    if _is_exhausted(error):
        return ResourceError(NO_MEMORY)
    return ModelError(f"the model failed to run: {reason_of(error)}")


def reason_of(error: Exception) -> str:
    """What it says, in one line."""
    # Where in its sources it was says nothing to a user, and takes the room of what was wrong.
    text = re.sub(r"/onnxruntime_src/\S+ ", "", " ".join(str(error).split()))
    return text.removeprefix("[ONNXRuntimeError] : ")[:300]


def _is_exhausted(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(text in str(error) for text in EXHAUSTED)
