"""The options of `onnxq bench` and `onnxq.bench`."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict

from onnxq.options import shared
from onnxq.options.fields import Options, flag, option
from onnxq.options.kinds import Choice, Number, Several, Whole

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

SECONDS = 5.0
"""Time for all models together."""


class Place(enum.Enum):
    """Where models are timed: the execution provider of ONNX Runtime."""

    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True, kw_only=True)
class BenchOptions(Options):
    """How to time models."""

    command: ClassVar[str] = "bench"

    data: Any = shared.data(extra="  [default: random samples]")
    preprocess: Any = shared.preprocess()
    tokenizer: Path | None = shared.tokenizer()
    states: tuple[str, ...] = shared.states()
    input_shapes: tuple[str, ...] = shared.input_shapes()
    mask: str | None = shared.mask()
    batch_size: int = option(
        Whole(), "Samples of a run; a size the model fixes wins.", 1, metavar="B"
    )
    threads: int = option(Whole(most=1024), "Threads that a run may use.", 1, metavar="N")
    providers: tuple[Place, ...] = option(
        Several(Choice(Place)),
        "Execution provider of ONNX Runtime; repeatable.",
        (Place.CPU,),
        flag="--provider",
    )
    seconds: float = option(
        Number(least=0), "Time to measure for, all models together.", SECONDS, metavar="S"
    )
    profile: bool = flag("Show the time by operator too, from ONNX Runtime's profiler.")
    libraries: tuple[Path, ...] = shared.libraries()


class BenchKeywords(TypedDict, total=False):
    """The options of `onnxq.bench` for editors; a test holds them to `BenchOptions`."""

    tokenizer: str | os.PathLike[str] | None
    states: Sequence[str]
    input_shapes: Sequence[str]
    mask: str | None
    batch_size: int
    threads: int
    providers: Sequence[Place | Literal["cpu", "cuda"]]
    seconds: float
    profile: bool
    libraries: Sequence[str | os.PathLike[str]]
