"""Kinds of option values with a spelling of their own: files, sizes, parts, values of Python's."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxq.errors import UsageError
from onnxq.options.kinds import MOST, Plain, listed, real, refusal, whole
from onnxq.suggest import suggest


@dataclass(frozen=True)
class NameOrFile:
    """Names that are known, or the path of a file whose name ends with `suffix`, as text."""

    values: tuple[str, ...]
    suffix: str

    @property
    def wanted(self) -> str:
        return listed([*self.values, f"the path of a {self.suffix} file"])

    def accept(self, value: object, name: str) -> str:
        text = os.fspath(value) if isinstance(value, os.PathLike) else value
        if not isinstance(text, str):
            raise refusal(name, self.wanted, value)
        if text not in self.values and not text.endswith(self.suffix):
            raise refusal(name, self.wanted, value, hint=suggest(text.lower(), self.values))
        return text

    def read(self, text: str) -> object:
        return text

    def write(self, value: str) -> Plain:
        return value


def path_of(value: object, name: str, wanted: str = "a path") -> Path:
    """The value as a path.

    Raises:
        UsageError: it is of another type, or no file can have the name.
    """
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(text, str) or "\0" in text:
        raise refusal(name, wanted, value)
    return Path(text)


@dataclass(frozen=True)
class File:
    """Paths."""

    wanted: str = "a path"

    def accept(self, value: object, name: str) -> Path:
        return path_of(value, name, self.wanted)

    def read(self, text: str) -> object:
        return text

    def write(self, value: Path) -> Plain:
        return str(value)


@dataclass(frozen=True)
class TextOr:
    """A text or a path, or a value that only Python has; what opens it judges the rest."""

    wanted: str
    fits: Callable[[object], bool]

    def accept(self, value: object, name: str) -> Any:
        if isinstance(value, os.PathLike):
            return str(path_of(value, name, self.wanted))
        if "\0" in value if isinstance(value, str) else not self.fits(value):
            raise refusal(name, self.wanted, value)
        return value

    def read(self, text: str) -> object:
        return text

    def write(self, value: object) -> Plain | None:
        return value if isinstance(value, str) else None


@dataclass(frozen=True)
class Pairs(TextOr):
    """Settings as text, "key=value,…"; a mapping becomes that text, lists joined by colons.

    One whose values are more than that, such as a configuration of another tool's, stays as it is.
    """

    def accept(self, value: object, name: str) -> Any:
        if isinstance(value, Mapping):
            if any(isinstance(each, (bool, Mapping)) or each is None for each in value.values()):
                return value
            return ",".join(f"{key}={_setting(each)}" for key, each in value.items())
        return super().accept(value, name)


def _setting(value: object) -> str:
    return ":".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


@dataclass(frozen=True)
class Part:
    """The I-th of N parts, counted from 1: (I, N), or "I/N"."""

    wanted: str = "a part I/N, such as 1/4"

    def accept(self, value: object, name: str) -> tuple[int, int]:
        found = self.read(value) if isinstance(value, str) else value
        parts = [whole(each) for each in found] if isinstance(found, (list, tuple)) else []
        if len(parts) != 2 or any(each is None or each > MOST for each in parts):
            raise refusal(name, self.wanted, value)
        index, count = (each or 0 for each in parts)
        if not 1 <= index <= count:
            raise UsageError(f"{name}: there is no part {index} of {count}")
        return index, count

    def read(self, text: str) -> object:
        found = re.fullmatch(r"(\d{1,19})/(\d{1,19})", text, re.ASCII)
        return (int(found[1]), int(found[2])) if found else text

    def write(self, value: tuple[int, int]) -> Plain:
        return f"{value[0]}/{value[1]}"


@dataclass(frozen=True)
class Share:
    """A share of a whole: a number from 0 to 1, or a text such as "10%"."""

    wanted: str = "a share, such as 10% or 0.1"

    def accept(self, value: object, name: str) -> float:
        found = self.read(value) if isinstance(value, str) else value
        share = real(found)
        if share is None or not 0 <= share <= 1:
            raise refusal(name, self.wanted, value)
        return share

    def read(self, text: str) -> object:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(\s*%)?", text.strip(), re.ASCII)
        if found is None:
            return text
        return float(found[1]) / (100 if found[2] else 1)

    def write(self, value: float) -> Plain:
        return value


UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30}


@dataclass(frozen=True)
class Size:
    """Bytes: a whole number, or a text such as "2GB"."""

    wanted: str = "a size, such as 2GB or 500MB"

    def accept(self, value: object, name: str) -> int:
        found = self.read(value) if isinstance(value, str) else value
        size = whole(found)
        if size is None or size < 0:
            raise refusal(name, self.wanted, value)
        return size

    def read(self, text: str) -> object:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower(), re.ASCII)
        if found is None or found[2] not in UNITS:
            return text
        size = float(found[1]) * UNITS[found[2]]
        return int(size) if 1 <= size < math.inf else text

    def write(self, value: int) -> Plain:
        return value


SECONDS = {"h": 3600, "m": 60, "s": 1}


@dataclass(frozen=True)
class Duration:
    """Seconds: a number above 0, or a text such as "90s", "10m" or "1h30m"."""

    wanted: str = "a time, such as 90s, 10m or 1h30m"

    def accept(self, value: object, name: str) -> float:
        found = self.read(value) if isinstance(value, str) else value
        seconds = real(found)
        if seconds is None or not 0 < seconds < math.inf:
            raise refusal(name, self.wanted, value)
        return seconds

    def read(self, text: str) -> object:
        parts = re.findall(r"(\d+(?:\.\d+)?)\s*([hms])\s*", text.lower(), re.ASCII)
        units = [unit for _, unit in parts]
        whole = re.fullmatch(r"(\d+(\.\d+)?\s*[hms]\s*)+", text.strip().lower(), re.ASCII)
        if whole is None or units != [unit for unit in SECONDS if unit in units]:
            return text
        return sum(float(number) * SECONDS[unit] for number, unit in parts)

    def write(self, value: float) -> Plain:
        """Such as "1h30m"; seconds keep their fraction."""
        whole, rest = divmod(value, 60)
        hours, minutes = divmod(int(whole), 60)
        parts = [f"{hours}h" * bool(hours), f"{minutes}m" * bool(minutes)]
        return "".join(parts) + (f"{rest:g}s" if rest or not whole else "")
