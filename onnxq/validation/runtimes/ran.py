"""What a runtime makes of a node."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ran:
    """One node as it runs.

    Attributes:
        kernel: what the runtime calls it, in which numbers.
        integer: whether these are integers.
    """

    kernel: str
    integer: bool
