"""What `compiled` compiles: the loops over all values. Imported only where numba is.

LLVM does not keep running extremes of a few lanes in registers by itself, and without that the
loops wait for the arithmetic instead of the memory. So the two innermost loops are written with
its vectors; it splits them where the processor's are shorter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

LANES = 16
"""Words of a vector, which is also ONNX Runtime's longest block of channels."""

ROW = 128
"""Words, or more, that a loop without those vectors goes through, to keep vector units busy."""

LARGEST = np.int32(np.iinfo(np.int32).max)
SMALLEST = np.int32(np.iinfo(np.int32).min)
INFINITY = np.int32(np.float32(np.inf).view(np.int32))
MINUS_INFINITY = np.int32(-1 - INFINITY)
"""In the order of `take`, where INFINITY is what it is."""

Array = NDArray[Any]
Codes = NDArray[np.uint16]
Floats = NDArray[np.float32]

WORDS = ir.VectorType(ir.IntType(32), LANES)
CODES = ir.VectorType(ir.IntType(16), LANES)


def _vector(value: int) -> ir.Constant:
    return ir.Constant(WORDS, [value] * LANES)


def _data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    """Pointer to an array's first element."""
    return context.make_array(kind)(context, builder, array).data


def _at(builder: Any, data: Any, index: Any, kind: Any) -> Any:
    """Pointer to the vector that begins at an element."""
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def _load(builder: Any, pointer: Any) -> Any:
    loaded = builder.load(pointer)
    loaded.align = 1
    return loaded


def _store(builder: Any, value: Any, pointer: Any) -> None:
    builder.store(value, pointer).align = 1


@intrinsic  # type: ignore[untyped-decorator]
def _compare(typing: Any, words: Any, rows: Any, low: Any, high: Any) -> Any:
    """Update 16 extremes, of which there are `low` and `high`, with rows of 16 words."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        data, smallest, largest = (
            _data(context, builder, kinds[n], arguments[n]) for n in (0, 2, 3)
        )
        start = ir.Constant(ir.IntType(64), 0)
        extremes = [_at(builder, array, start, WORDS) for array in (smallest, largest)]
        kept = [
            cgutils.alloca_once_value(builder, _load(builder, pointer)) for pointer in extremes
        ]
        with cgutils.for_range(builder, arguments[1]) as loop:
            index = builder.mul(loop.index, ir.Constant(ir.IntType(64), LANES))
            word = _load(builder, _at(builder, data, index, WORDS))
            turned = builder.lshr(builder.ashr(word, _vector(31)), _vector(1))
            place = builder.xor(word, turned)
            for relation, best in zip("<>", kept, strict=True):
                now = builder.load(best)
                builder.store(
                    builder.select(builder.icmp_signed(relation, place, now), place, now), best
                )
        for best, pointer in zip(kept, extremes, strict=True):
            _store(builder, builder.load(best), pointer)
        return context.get_dummy_value()

    return types.void(words, rows, low, high), generate


@intrinsic  # type: ignore[untyped-decorator]
def _encode(typing: Any, words: Any, start: Any, stride: Any, rows: Any, codes: Any) -> Any:
    """Write the codes of rows of 16 words, which begin `stride` words apart."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        data, out = (_data(context, builder, kinds[n], arguments[n]) for n in (0, 4))
        with cgutils.for_range(builder, arguments[3]) as loop:
            index = builder.add(arguments[1], builder.mul(loop.index, arguments[2]))
            word = _load(builder, _at(builder, data, index, WORDS))
            code = builder.trunc(builder.lshr(word, _vector(18)), CODES)
            written = builder.mul(loop.index, ir.Constant(ir.IntType(64), LANES))
            _store(builder, code, _at(builder, out, written, CODES))
        return context.get_dummy_value()

    return types.void(words, start, stride, rows, codes), generate


def take(
    words: Array, step: int, inner: int, codes: Codes, filled: int, minimum: Floats,
    maximum: Floats, half: Floats,
) -> bool:  # fmt: skip
    """`Loops.take` of the words of float32 numbers, as int32 (repeats, outer, positions·inner).

    A float32 is a sign and a magnitude. With the magnitude's bits turned over where it is negative,
    the words as integers are in the order of the numbers; turned over again they are words.
    """
    repeats, outer, size = words.shape
    positions = size // inner
    in_vectors = LANES % inner == 0
    lanes = LANES if in_vectors else min(size, inner * max(1, ROW // inner))
    low, high = np.empty((outer, lanes), np.int32), np.empty((outer, lanes), np.int32)
    low[:], high[:] = LARGEST, SMALLEST
    first = step // 2
    coded = (positions - first + step - 1) // step
    for repeat in range(repeats):
        for block in range(outer):
            plane = words[repeat, block]
            done = 0
            if in_vectors:
                _compare(plane, size // LANES, low[block], high[block])
                done = size // LANES * LANES
            for start in range(done, size, lanes):
                part = plane[start : start + lanes]
                for lane in range(part.size):
                    word = part[lane]
                    # numba takes the result of integers for 64 bits wide.
                    place = np.int32(word ^ ((word >> np.int32(31)) & LARGEST))
                    low[block, lane] = min(low[block, lane], place)
                    high[block, lane] = max(high[block, lane], place)
            written = (filled + repeat * coded) * inner
            out = codes[block, written : written + coded * inner]
            done = 0
            if step == 1:
                _encode(plane, 0, LANES, size // LANES, out)
                done = size // LANES * LANES
            elif inner == LANES:
                _encode(plane, first * LANES, step * LANES, coded, out)
                done = out.size
            for position in range(done // inner, coded):
                start = (first + position * step) * inner
                part = plane[start : start + inner]
                for lane in range(part.size):
                    out[position * inner + lane] = (part[lane] >> 18) & 0x3FFF
    least, most = low[:, :inner].copy(), high[:, :inner].copy()
    for start in range(inner, lanes, inner):
        least = np.minimum(least, low[:, start : start + inner])
        most = np.maximum(most, high[:, start : start + inner])
    if least.min() <= MINUS_INFINITY or most.max() >= INFINITY:
        return False
    least ^= (least >> np.int32(31)) & LARGEST
    most ^= (most >> np.int32(31)) & LARGEST
    smallest, largest = least.ravel().view(np.float32), most.ravel().view(np.float32)
    # + 0: of −0 and +0 either may be the smaller one.
    minimum[:] = np.minimum(minimum, smallest) + np.float32(0)
    maximum[:] = np.maximum(maximum, largest) + np.float32(0)
    half[0], half[1] = min(half[0], smallest.min()), max(half[1], largest.max())
    return True


def count(codes: Codes, filled: int, columns: NDArray[np.uint16], counts: Array) -> None:
    """`Loops.count`, given the column of each code."""
    outer, _, inner = codes.shape
    for block in range(outer):
        block_codes = codes[block]
        if inner == 1:
            row = counts[block]
            for position in range(filled):
                row[columns[block_codes[position, 0]]] += 1
        else:
            for position in range(filled):
                for lane in range(inner):
                    counts[block * inner + lane, columns[block_codes[position, lane]]] += 1
