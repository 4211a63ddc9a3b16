"""How wide the sums of an integer kernel are, by the formats of what it multiplies."""

from __future__ import annotations

from dataclasses import dataclass

from onnxq.formats.table import BYTE, FORMATS, SUMS, Floating, Format, Uniform

Interval = tuple[int, int]
"""Smallest and largest whole number; 0 lies between them."""

DIGIT = 1 << 8
"""Numbers of more than 8 bits are multiplied as two digits of this base."""


@dataclass(frozen=True)
class Accumulator:
    """The integer type of sums: 32 bits, which they may leave, or 64, which none does."""

    bits: int

    @property
    def highest(self) -> int:
        return (1 << (self.bits - 1)) - 1


def accumulator_of(*operands: Format) -> Accumulator:
    """8 × 8 bits add up in 32, as on every machine onnxq knows; anything wider in 64."""
    return Accumulator(SUMS.bits if max(each.bits for each in operands) <= 8 else 2 * SUMS.bits)


def pair_sums_of(data: Format, weight: Format) -> Uniform | None:
    """The numbers in which x86 without VNNI adds pairs of products; None where it adds exactly.

    It saturates products of bytes by signed bytes. Unsigned weights are widened first.
    """
    grid = FORMATS["int16"].grid
    bytes_only = data.bits == BYTE == weight.bits and not isinstance(data.grid, Floating)
    saturates = bytes_only and weight.signed and isinstance(weight.grid, Uniform)
    return grid if saturates and isinstance(grid, Uniform) else None


@dataclass(frozen=True)
class Digit:
    """One digit of a whole number x = Σ weight · digit.

    Attributes:
        weight: 1 or `DIGIT`.
        interval: where the digit lies.
    """

    weight: int
    interval: Interval


def digits_of(interval: Interval) -> tuple[Digit, ...]:
    """The digits of the numbers in an interval: one where it is narrow enough, else two.

    The upper one is floor(x / DIGIT), the lower one what is left, which is never negative.
    """
    low, high = interval
    if max(-low, high) <= DIGIT:
        return (Digit(1, interval),)
    return Digit(DIGIT, (low // DIGIT, high // DIGIT)), Digit(1, (0, DIGIT - 1))
