"""What `compiled` compiles: the loops over all values. Imported only where numba is.

LLVM does not keep the running extremes of a few lanes in registers by itself; the loop then waits
for its own stores and not for the memory. So the two innermost loops are written in its vectors,
which it splits where the processor's are shorter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable
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

SHIFT = 18
"""Bits behind a code, as in `bins.write_codes`. Not from there: numba compiles anew what it kept
when this file has changed, not when another has."""

CODE = (1 << (32 - SHIFT)) - 1
"""The bits of a code: the shift of a negative word sets those before them, too."""

Array = NDArray[Any]
Codes = NDArray[np.uint16]
Floats = NDArray[np.float32]

WORDS = ir.VectorType(ir.IntType(32), LANES)
CODES = ir.VectorType(ir.IntType(16), LANES)
INDEX = ir.IntType(64)


def _words(value: int) -> ir.Constant:
    return ir.Constant(WORDS, [value] * LANES)


def _data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    """Pointer to an array's first element."""
    return context.make_array(kind)(context, builder, array).data


def _load(builder: Any, data: Any, index: Any) -> Any:
    """The 16 words from an index on."""
    pointer = builder.bitcast(builder.gep(data, [index]), WORDS.as_pointer())
    loaded = builder.load(pointer)
    loaded.align = 4
    return loaded


def _store(builder: Any, vector: Any, data: Any, index: Any) -> None:
    pointer = builder.bitcast(builder.gep(data, [index]), vector.type.as_pointer())
    builder.store(vector, pointer).align = 2


@intrinsic  # type: ignore[untyped-decorator]
def _compare(_: Any, words: Any, first: Any, rows: Any, low: Any, high: Any, at: Any) -> Any:
    """Update the extremes of 16 lanes with rows of 16 words, in the order that `take` explains."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data, *extremes = (
            _data(context, builder, signature.args[n], arguments[n]) for n in (0, 3, 4)
        )
        _, first, rows, _, _, at = arguments
        best = [cgutils.alloca_once_value(builder, _load(builder, e, at)) for e in extremes]
        with cgutils.for_range(builder, rows) as loop:
            index = builder.mul(loop.index, ir.Constant(INDEX, LANES))
            word = _load(builder, data, builder.add(first, index))
            mask = builder.lshr(builder.ashr(word, _words(31)), _words(1))
            place = builder.xor(word, mask)
            for relation, kept in zip("<>", best, strict=True):
                before = builder.load(kept)
                better = builder.icmp_signed(relation, place, before)
                builder.store(builder.select(better, place, before), kept)
        for kept, extreme in zip(best, extremes, strict=True):
            _store(builder, builder.load(kept), extreme, at)
        return context.get_dummy_value()

    return types.void(words, first, rows, low, high, at), generate


@intrinsic  # type: ignore[untyped-decorator]
def _encode(_: Any, words: Any, first: Any, stride: Any, rows: Any, codes: Any, at: Any) -> Any:
    """Write the codes of rows of 16 words, which begin `stride` words apart."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data, out = (_data(context, builder, signature.args[n], arguments[n]) for n in (0, 4))
        _, first, stride, rows, _, at = arguments
        with cgutils.for_range(builder, rows) as loop:
            word = _load(builder, data, builder.add(first, builder.mul(loop.index, stride)))
            code = builder.trunc(builder.lshr(word, _words(SHIFT)), CODES)
            index = builder.mul(loop.index, ir.Constant(INDEX, LANES))
            _store(builder, code, out, builder.add(at, index))
        return context.get_dummy_value()

    return types.void(words, first, stride, rows, codes, at), generate


@register_jitable  # type: ignore[untyped-decorator]
def _compare_rest(words: Array, low: Array, high: Array) -> None:
    """Update the extremes of lanes that repeat along the words."""
    lanes = low.size
    for start in range(0, words.size, lanes):
        part = words[start : start + lanes]
        for lane in range(part.size):
            word = part[lane]
            # numba takes the result of integers for 64 bits wide.
            place = np.int32(word ^ ((word >> np.int32(31)) & LARGEST))
            low[lane] = min(low[lane], place)
            high[lane] = max(high[lane], place)


@register_jitable  # type: ignore[untyped-decorator]
def _encode_rest(words: Array, stride: int, inner: int, codes: Codes) -> None:
    """Write the codes of parts of `inner` words, which begin `stride` words apart."""
    for part in range(codes.size // inner):
        taken = words[part * stride : part * stride + inner]
        written = codes[part * inner : part * inner + inner]
        for lane in range(taken.size):
            written[lane] = (taken[lane] >> SHIFT) & CODE


@register_jitable  # type: ignore[untyped-decorator]
def _join(lanes: Array, inner: int, better: Callable[[Array, Array], Array]) -> Array:
    """Bring the extremes of lanes (outer, lanes) down to the channels (outer·inner,)."""
    joined = lanes[:, :inner].copy()
    for start in range(inner, lanes.shape[1], inner):
        joined = better(joined, lanes[:, start : start + inner])
    return joined.ravel()


def take(
    words: Array, step: int, inner: int, codes: Codes, filled: int, minimum: Floats,
    maximum: Floats, owners: NDArray[np.intp], halves: Floats,
) -> bool:  # fmt: skip
    """`Loops.take` of the words of float32 numbers, as int32 (repeats, outer, positions·inner).

    A float32 is a sign and a magnitude. With the magnitude's bits turned over where it is negative,
    the words as integers are in the order of the numbers; turned over again they are words.
    """
    repeats, outer, size = words.shape
    in_vectors = LANES % inner == 0
    lanes = LANES if in_vectors else min(size, inner * max(1, ROW // inner))
    # Of the repeats of either half, and of those of both.
    low, high = np.empty((3 * outer, lanes), np.int32), np.empty((3 * outer, lanes), np.int32)
    low[:], high[:] = LARGEST, SMALLEST
    coded = (size // inner - step // 2 + step - 1) // step * inner
    # Words of a plane that are compared in vectors, and codes that are written so.
    compared = size // LANES * LANES if in_vectors else 0
    encoded = coded // LANES * LANES if step == 1 or inner == LANES else 0
    first = step // 2 * inner
    # Without a step the codes of a plane are in one piece, whatever its channels.
    part, stride = (1, 1) if step == 1 else (inner, step * inner)
    apart = LANES * stride // part
    for repeat in range(repeats):
        for block in range(outer):
            start = (repeat * outer + block) * size
            row = owners[repeat] * outer + block
            if in_vectors:
                _compare(words, start, compared // LANES, low, high, row * LANES)
            if compared < size:
                _compare_rest(words[repeat, block, compared:], low[row], high[row])
            # They are still in the cache.
            begin = filled * inner + repeat * coded
            at = block * codes.shape[1] + begin
            _encode(words, start + first, apart, encoded // LANES, codes, at)
            if encoded < coded:
                rest = words[repeat, block, first + encoded :]
                _encode_rest(rest, stride, part, codes[block, begin + encoded : begin + coded])
    least, most = _join(low, inner, np.minimum), _join(high, inner, np.maximum)
    if least.min() <= MINUS_INFINITY or most.max() >= INFINITY:
        return False
    least ^= (least >> np.int32(31)) & LARGEST
    most ^= (most >> np.int32(31)) & LARGEST
    channels = minimum.size
    for owner in range(3):
        if (owners == owner).any():
            here = slice(owner * channels, owner * channels + channels)
            smallest, largest = least[here].view(np.float32), most[here].view(np.float32)
            # + 0: of −0 and +0 either may be the smaller one.
            minimum[:] = np.minimum(minimum, smallest) + np.float32(0)
            maximum[:] = np.maximum(maximum, largest) + np.float32(0)
            first, last = (0, 1) if owner == 2 else (owner, owner)
            _widen(halves[first : last + 1], smallest.min(), largest.max())
    return True


@register_jitable  # type: ignore[untyped-decorator]
def _widen(halves: Floats, smallest: np.float32, largest: np.float32) -> None:
    """Make room in each of them for two values."""
    for half in halves:
        half[0], half[1] = min(half[0], smallest), max(half[1], largest)


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


def weigh(words: Array, gradient: Array, sums: Array) -> None:
    """`Loops.weigh`, given the words of the values as uint32."""
    for place in range(words.size):
        code = words[place] >> SHIFT
        slope = np.float64(gradient[place])
        sums[0, code] += slope * slope
        sums[1, code] += slope
