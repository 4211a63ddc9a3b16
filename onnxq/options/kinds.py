"""Kinds of option values: what is accepted from Python and TOML, and how text names it.

A kind gives what it accepts one form, so that accepting it again changes nothing; it refuses the
rest with a `UsageError` that begins with the name the user knows the option by.
"""

from __future__ import annotations

import enum
import math
import numbers
import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from onnxq.errors import UsageError
from onnxq.suggest import suggest

Plain = str | bool | int | float | list[Any]
"""What TOML and JSON can hold."""


class Kind(Protocol):
    """One kind of values."""

    @property
    def wanted(self) -> str:
        """What the values are, as in "must be …"."""

    def accept(self, value: object, name: str) -> Any:
        """The value in the kind's one form.

        Raises:
            UsageError: it is none of this kind; the message names the option by `name`.
        """

    def read(self, text: str) -> object:
        """What a word of the command line stands for; the text where it makes no sense."""

    def write(self, value: Any) -> Plain | None:
        """The value for a recipe; None for one that has no text."""


def refusal(name: str, wanted: str, value: object, *, hint: str = "") -> UsageError:
    """The error for a value that is not what the option wants."""
    return UsageError(f"{name} must be {wanted}, not {reprlib.repr(value)}", hint=hint)


def listed(words: Iterable[str]) -> str:
    """The words as an English list of alternatives."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


# --- numbers, flags, texts -------------------------------------------------------------------


class _Integers:
    """How whole numbers are read and written."""

    def read(self, text: str) -> object:
        try:
            return int(text)
        except ValueError:
            return text

    def write(self, value: int) -> Plain:
        return value


MOST = 2**63 - 1
"""The largest whole number: no array counts further."""


def whole(value: object) -> int | None:
    """The value, Python's or NumPy's, as a whole number; None where it is none."""
    fits = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return int(value) if fits else None  # type: ignore[call-overload]


def real(value: object) -> float | None:
    """The same as a number; NaN is none."""
    fits = isinstance(value, numbers.Real) and not isinstance(value, bool)
    try:
        number = float(value) if fits else math.nan  # type: ignore[arg-type]
    except OverflowError:
        return None
    return None if math.isnan(number) else number


@dataclass(frozen=True)
class Whole(_Integers):
    """Whole numbers from `least` to `most`."""

    least: int = 1
    most: int = MOST

    @property
    def wanted(self) -> str:
        return f"a whole number of at least {self.least}"

    def accept(self, value: object, name: str) -> int:
        number = whole(value)
        if number is None or number < self.least:
            raise refusal(name, self.wanted, value)
        if number > self.most:
            raise refusal(name, f"a whole number of at most {self.most:,}", value)
        return number


@dataclass(frozen=True)
class OneOf(_Integers):
    """One of a few whole numbers."""

    of: tuple[int, ...]

    @property
    def wanted(self) -> str:
        return listed(map(str, self.of))

    def accept(self, value: object, name: str) -> int:
        number = whole(value)
        if number is None or number not in self.of:
            raise refusal(name, self.wanted, value)
        return number


@dataclass(frozen=True)
class Number:
    """Numbers, but NaN; from `least` on where that is given."""

    least: float | None = None

    @property
    def wanted(self) -> str:
        return "a number" if self.least is None else f"a number of at least {self.least:g}"

    def accept(self, value: object, name: str) -> float:
        number = real(value)
        if number is None or (self.least is not None and number < self.least):
            raise refusal(name, self.wanted, value)
        return number

    def read(self, text: str) -> object:
        try:
            return float(text)
        except ValueError:
            return text

    def write(self, value: float) -> Plain:
        return value


def _is_bool_of_numpy(value: object) -> bool:
    """Told by its looks: options are read without NumPy."""
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    return kind == "b" and getattr(value, "shape", None) == ()


@dataclass(frozen=True)
class Flag:
    """True or false; `negatable` gives the flag a `--no-` form too."""

    negatable: bool = False
    wanted: str = "true or false"

    def accept(self, value: object, name: str) -> bool:
        if not isinstance(value, bool) and not _is_bool_of_numpy(value):
            raise refusal(name, self.wanted, value)
        return bool(value)

    def read(self, text: str) -> object:
        return {"true": True, "false": False}.get(text, text)

    def write(self, value: bool) -> Plain:
        return value


@dataclass(frozen=True)
class Text:
    """Texts; `wanted` says which."""

    wanted: str = "a text"

    def accept(self, value: object, name: str) -> str:
        if not isinstance(value, str):
            raise refusal(name, self.wanted, value)
        return value

    def read(self, text: str) -> object:
        return text

    def write(self, value: str) -> Plain:
        return value


@dataclass(frozen=True)
class Pattern(Text):
    """Regular expressions, as texts."""

    wanted: str = "a regular expression"

    def accept(self, value: object, name: str) -> str:
        text = super().accept(value, name)
        try:
            re.compile(text)
        except re.error as error:
            raise UsageError(f"{name} {text!r} is no regular expression: {error}") from None
        return text


# --- choices and sequences -------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """The members of an enumeration, or their values."""

    of: type[enum.Enum]

    @property
    def values(self) -> tuple[str, ...]:
        return tuple(member.value for member in self.of)

    @property
    def wanted(self) -> str:
        return listed(self.values)

    def accept(self, value: object, name: str) -> enum.Enum:
        if isinstance(value, self.of):
            return value
        if isinstance(value, str):
            if value in self.values:
                return self.of(value)
            raise refusal(name, self.wanted, value, hint=suggest(value.lower(), self.values))
        raise refusal(name, self.wanted, value)

    def read(self, text: str) -> object:
        return text

    def write(self, value: enum.Enum) -> Plain:
        return str(value.value)


@dataclass(frozen=True)
class Several:
    """A sequence of values of one kind; on the command line the option is repeated."""

    each: Kind

    @property
    def wanted(self) -> str:
        kind = self.each.wanted
        return f"a list, each {kind if kind.startswith('a ') else f'one of {kind}'}"

    def accept(self, value: object, name: str) -> tuple[Any, ...]:
        if isinstance(value, str):
            raise refusal(name, self.wanted, value, hint=f"write [{value!r}]")
        if not isinstance(value, Iterable) or isinstance(value, Mapping):
            raise refusal(name, self.wanted, value)
        return tuple(self.each.accept(item, name) for item in value)

    def read(self, text: str) -> object:
        return [self.each.read(text)]

    def write(self, value: tuple[Any, ...]) -> Plain | None:
        written = [text for item in value if (text := self.each.write(item)) is not None]
        return written or None
