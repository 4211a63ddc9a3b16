"""Results of ONNX Runtime where it wrote them, without a copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxq.model.session import failure_of, run

if TYPE_CHECKING:
    import onnxruntime as ort

Array = NDArray[Any]


def run_in_place(
    session: ort.InferenceSession, names: Sequence[str], feeds: Mapping[str, Array]
) -> list[Array]:
    """`run`, but float32 results are the memory that ONNX Runtime wrote them to, not copies.

    For large results this is a third faster and takes half the memory. CPU only.
    """
    import onnxruntime as ort

    if any(np.asarray(values).dtype.kind not in "fiub" for values in feeds.values()):
        return run(session, names, feeds)
    try:
        given = {
            name: ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(values))
            for name, values in feeds.items()
        }
        found = session.run_with_ort_values(names, given)
        return [_view(value) for value in found]
    except Exception as error:  # noqa: BLE001
        raise failure_of(error) from None


class _Memory:
    """Lends the memory of an OrtValue to numpy, and keeps it as long as an array looks at it."""

    def __init__(self, value: ort.OrtValue) -> None:
        self._value = value
        self.__array_interface__ = {
            "version": 3, "typestr": np.dtype(np.float32).str, "shape": tuple(value.shape()),
            "data": (value.data_ptr(), False),
        }  # fmt: skip


def _view(value: ort.OrtValue) -> Array:
    if value.data_type() != "tensor(float)" or 0 in value.shape():
        return np.asarray(value.numpy())
    return np.asarray(_Memory(value))
