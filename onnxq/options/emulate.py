"""The options of `onnxq emulate`, `onnxq.emulate` and `onnxq.api.compare_layers`."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from onnxq.options import shared
from onnxq.options.fields import flag, option
from onnxq.options.kinds import Choice
from onnxq.options.reading import ReadingKeywords, ReadingOptions

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence


class Device(enum.Enum):
    """Where ONNX Runtime computes what the emulator is compared with."""

    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True, kw_only=True)
class EmulateOptions(ReadingOptions):
    """What to emulate."""

    command: ClassVar[str] = "emulate"

    batch_size: int | None = shared.batch_size_by_model()
    memory: int = shared.memory()
    saturate: bool = flag(
        "Add pairs of products in 16 bits, where they saturate, as x86 without VNNI does."
    )
    libraries: tuple[Path, ...] = shared.libraries()


class EmulateKeywords(ReadingKeywords, total=False):
    """The options of `onnxq.emulate` for editors; a test holds them to `EmulateOptions`."""

    batch_size: int | None
    memory: int | str
    saturate: bool
    libraries: Sequence[str | os.PathLike[str]]


@dataclass(frozen=True, kw_only=True)
class CompareLayersOptions(ReadingOptions):
    """What to compare the emulator's layers with."""

    command: ClassVar[str] = "compare_layers"

    provider: Device = option(Choice(Device), "Where ONNX Runtime computes the layers.", Device.CPU)
    batch_size: int | None = shared.batch_size_by_model()
    memory: int = shared.memory()
    libraries: tuple[Path, ...] = shared.libraries()


class CompareLayersKeywords(ReadingKeywords, total=False):
    """The same for editors; a test holds them to `CompareLayersOptions`."""

    provider: Device | Literal["cpu", "cuda"]
    batch_size: int | None
    memory: int | str
    libraries: Sequence[str | os.PathLike[str]]
