"""The options of `onnxq emulate`, `onnxq.emulate` and `onnxq.api.compare_layers`."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict

from onnxq.options import shared
from onnxq.options.fields import Options, option
from onnxq.options.kinds import Choice

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence


class Device(enum.Enum):
    """Where ONNX Runtime computes what the emulator is compared with."""

    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True, kw_only=True)
class EmulateOptions(Options):
    """What to emulate."""

    command: ClassVar[str] = "emulate"

    data: Any = shared.data(required=True)
    preprocess: Any = shared.preprocess()
    samples: int | None = shared.samples()
    states: tuple[str, ...] = shared.states()
    input_shapes: tuple[str, ...] = shared.input_shapes()
    batch_size: int = shared.batch_size()
    libraries: tuple[Path, ...] = shared.libraries()


class EmulateKeywords(TypedDict, total=False):
    """The options of `onnxq.emulate` for editors; a test holds them to `EmulateOptions`."""

    states: Sequence[str]
    input_shapes: Sequence[str]
    samples: int | None
    batch_size: int
    libraries: Sequence[str | os.PathLike[str]]


@dataclass(frozen=True, kw_only=True)
class CompareLayersOptions(Options):
    """What to compare the emulator's layers with."""

    command: ClassVar[str] = "compare_layers"

    data: Any = shared.data(required=True)
    preprocess: Any = shared.preprocess()
    samples: int | None = shared.samples()
    states: tuple[str, ...] = shared.states()
    input_shapes: tuple[str, ...] = shared.input_shapes()
    provider: Device = option(Choice(Device), "Where ONNX Runtime computes the layers.", Device.CPU)
    libraries: tuple[Path, ...] = shared.libraries()


class CompareLayersKeywords(TypedDict, total=False):
    """The same for editors; a test holds them to `CompareLayersOptions`."""

    states: Sequence[str]
    input_shapes: Sequence[str]
    samples: int | None
    provider: Device | Literal["cpu", "cuda"]
    libraries: Sequence[str | os.PathLike[str]]
