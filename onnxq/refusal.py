"""The one value for "no": why something is not, or cannot be, done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from onnxq.errors import ModelError

T = TypeVar("T")


@dataclass(frozen=True)
class Refusal:
    """A reason: one clause without a final period. A function returns it in place of its result."""

    reason: str

    def __post_init__(self) -> None:
        if not self.reason:
            raise ValueError("a refusal needs a reason")

    def __str__(self) -> str:
        return self.reason


def granted(value: T | Refusal) -> T:
    """The value, where an earlier stage saw to it that there is one.

    Raises:
        ModelError: it was refused after all.
    """
    if isinstance(value, Refusal):
        raise ModelError(value.reason)
    return value
