"""Whether data fit the model: rank, sizes, element type, finite values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxq.data.batching import Array
    from onnxq.model.model import TensorSpec


def check_shape(shape: tuple[int, ...], spec: TensorSpec, where: str, *, hint: str = "") -> None:
    """Raise `DataError` unless samples of `shape`, axis 0 counting them, fit the input.

    Axis 0 may have any size. `where` names the data in the message, `hint` replaces the
    advice on arrays.
    """
    expected = spec.shape
    if expected is None and shape:
        return
    if (
        expected is not None
        and len(shape) == len(expected)
        and all(
            not isinstance(want, int) or got == want
            for got, want in zip(shape[1:], expected[1:], strict=True)
        )
    ):
        return
    wanted = () if expected is None else expected
    raise DataError(
        f"{where}: input {spec.name!r} has shape {sizes(shape)}, "
        f"the model expects {sizes(('N', *wanted[1:]))}",
        hint=hint or _shape_hint(shape, wanted),
    )


def _shape_hint(shape: tuple[int, ...], expected: Sequence[object]) -> str:
    if shape == tuple(expected[1:]):
        return "the first axis counts the samples: add it with x[None]"
    if len(shape) == len(expected) == 4:
        count, a, b, c = shape
        if (c, a, b) == tuple(expected[1:]):
            return f"it looks like NHWC, the model takes NCHW: {count}×{c}×{a}×{b}; transpose it"
        if (b, c, a) == tuple(expected[1:]):
            return f"it looks like NCHW, the model takes NHWC: {count}×{b}×{c}×{a}; transpose it"
    return "the first axis counts the samples, the others must agree"


def sizes(shape: Sequence[object]) -> str:
    """A shape as people write it: "N×3×?×?"."""
    return "×".join("?" if size is None else str(size) for size in shape) or "of a scalar"


def check_dtype(dtype: np.dtype[Any], spec: TensorSpec, where: str) -> None:
    """Raise `DataError` where no value of `dtype` should be fed to the input.

    Numbers may become floats and integers other integers; floats never become integers.
    """
    numeric = _is_float(dtype) or dtype.kind in "biu"
    if spec.dtype.kind == "O":
        raise DataError(
            f"{where}: input {spec.name!r} takes a sequence or a map, which onnxq cannot feed",
            hint="cut the model behind what turns it into tensors",
        )
    if dtype == spec.dtype and numeric:
        return
    if _is_text(spec.dtype) and (_is_text(dtype) or dtype.kind == "O"):
        return
    if numeric and (_is_float(spec.dtype) or (dtype.kind in "biu" and spec.dtype.kind in "biu")):
        return
    raise DataError(
        f"{where}: input {spec.name!r} is {dtype.name}, the model expects {spec.dtype.name}",
        hint="store the array in the type the model expects",
    )


def convert(array: Array, spec: TensorSpec, where: str) -> Array:
    """The same values in the input's element type; the array itself where it has that type.

    Text may be UTF-8 bytes. A float may be rounded to a narrower float type. Raises `DataError`
    where the type does not fit at all (`check_dtype`), where a float would overflow, or an integer
    would change.
    """
    check_dtype(array.dtype, spec, where)
    if array.dtype == spec.dtype:
        return array
    if _is_text(spec.dtype):
        return _as_text(array, spec, where)
    with np.errstate(all="ignore"):
        converted = array.astype(spec.dtype)
        if not np.can_cast(array.dtype, spec.dtype, "safe") and _is_changed(array, converted):
            raise DataError(
                f"{where}: input {spec.name!r} has {array.dtype.name} values that do not fit "
                f"the model's {spec.dtype.name}",
                hint="rescale the data or export the model with a wider input",
            )
    return converted


def _is_text(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "US"


def _as_text(array: Array, spec: TensorSpec, where: str) -> Array:
    """Text or its UTF-8 bytes as NumPy's text; of bytes ONNX Runtime would make other texts."""
    if array.dtype.kind == "U":
        return array
    texts = [each.decode() if isinstance(each, bytes) else each for each in array.ravel().tolist()]
    if not all(isinstance(each, str) for each in texts):
        raise DataError(f"{where}: input {spec.name!r} holds other values than text")
    return np.array(texts, str).reshape(array.shape)


def _is_changed(before: Array, after: Array) -> bool:
    """Whether converting lost more than the last bits of a float."""
    if _is_float(before.dtype):
        # NaN, too: some 8-bit floats have no infinity.
        return bool((~np.isfinite(after) & np.isfinite(before)).any())
    if _is_float(after.dtype):
        return bool((after.astype(before.dtype) != before).any())
    if not before.size:
        return False
    # A round trip would not see int64 −1 become uint64 2⁶⁴−1 and back: compare the bounds.
    low, high = (0, 1) if after.dtype.kind == "b" else _bounds(after.dtype)
    return bool(int(before.min()) < low or int(before.max()) > high)


def _bounds(dtype: np.dtype[Any]) -> tuple[int, int]:
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def _is_float(dtype: np.dtype[Any]) -> bool:
    # bfloat16 and the 8-bit floats are no subtypes of np.floating; their names tell.
    return dtype.name.startswith(("float", "bfloat"))


def is_finite(values: Array) -> bool:
    """Whether an array holds neither NaN nor Inf; what are no floats hold neither."""
    return not _is_float(values.dtype) or bool(np.isfinite(values).all())
