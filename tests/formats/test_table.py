"""THE table of formats: each row is what ONNX says of its element type."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnxq.errors import UsageError
from onnxq.formats.accumulators import DIGIT, accumulator_of, digits_of
from onnxq.formats.table import FORMATS, Floating, Uniform, format_named, format_of

each_format = pytest.mark.parametrize("row", FORMATS.values(), ids=str)


@each_format
def test_element_and_storage_are_onnxs(row):
    number = onnx.TensorProto.DataType.Value(row.name.upper())
    assert row.element == number
    assert row.dtype == onnx.helper.tensor_dtype_to_np_dtype(number)
    assert format_of(number) is row


@each_format
def test_the_grid_is_that_of_the_storage_type(row):
    if isinstance(row.grid, Uniform):
        info = ml_dtypes.iinfo(row.dtype)
        assert (row.grid.lowest, row.grid.highest) == (info.min, info.max)
        assert row.bits == info.bits
    else:
        info = ml_dtypes.finfo(row.dtype)
        assert row.grid.highest == float(info.max)
        assert (row.grid.mantissa, row.bits) == (info.nmant, info.bits)


@each_format
def test_the_opset_is_the_first_that_dequantizes_it(row):
    def types(opset):
        schema = onnx.defs.get_schema("DequantizeLinear", opset)
        return set(schema.inputs[0].types)

    kind = f"tensor({row.name})"
    assert kind in types(row.opset)
    assert kind not in types(row.opset - 1) if row.opset > 10 else True


def test_no_format_of_onnx_is_missing():
    schema = onnx.defs.get_schema("DequantizeLinear", onnx.defs.onnx_opset_version())
    known = {f"tensor({name})" for name in FORMATS}
    assert set(schema.inputs[0].types) <= known


def test_unknown_names_get_the_nearest():
    with pytest.raises(UsageError, match="unknown number format 'int9'") as error:
        format_named("int9")
    assert "did you mean 'int8'?" in error.value.hint or "did you mean" in error.value.hint
    assert format_named("uint16").bits == 16
    assert format_of(onnx.TensorProto.STRING) is None


def test_widths():
    assert [FORMATS[n].bits for n in ("int8", "uint16", "int4", "float8e4m3fn", "float4e2m1")] == [
        8, 16, 4, 8, 4,
    ]  # fmt: skip
    assert all(row.signed == row.name.startswith(("int", "float")) for row in FORMATS.values())
    assert not any(row.zero_point for row in FORMATS.values() if isinstance(row.grid, Floating))


# --- accumulators ------------------------------------------------------------------------------


def test_accumulators_follow_the_widest_operand():
    int8, uint16 = FORMATS["int8"], FORMATS["uint16"]
    assert accumulator_of(int8, FORMATS["uint8"]).bits == 32
    assert accumulator_of(int8, FORMATS["int4"]).bits == 32
    assert accumulator_of(uint16, int8).bits == 64
    assert accumulator_of(int8, int8).highest == 2**31 - 1


@pytest.mark.parametrize(
    "interval", [(0, 65535), (-65535, 0), (-32768, 32767), (-100, 155), (-1, 0)]
)
def test_digits_add_up(interval):
    x = np.unique(np.linspace(*interval, 5000).astype(np.int64))
    digits = digits_of(interval)
    values = {1: x} if len(digits) == 1 else {DIGIT: x // DIGIT, 1: x % DIGIT}
    assert np.array_equal(sum(d.weight * values[d.weight] for d in digits), x)
    for digit in digits:
        low, high = digit.interval
        assert low <= values[digit.weight].min()
        assert values[digit.weight].max() <= high
        assert max(-low, high) <= DIGIT
