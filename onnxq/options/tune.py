"""The options of `onnxq tune` and `onnxq.tune`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from onnxq.options import shared
from onnxq.options.fields import option
from onnxq.options.kinds import Choice, Several
from onnxq.options.quantize import SchemeName
from onnxq.options.reading import ReadingKeywords, ReadingOptions
from onnxq.options.validate import Execution, ExecutionName, classes, labels, metrics
from onnxq.options.values import Duration, File

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

BUDGET = 600.0
"""Seconds."""


@dataclass(frozen=True, kw_only=True)
class TuneOptions(ReadingOptions):
    """Which ways to quantize a model to try, and how to judge them."""

    command: ClassVar[str] = "tune"

    data: Any = shared.data(required=True, extra=" Calibrates and rounds every candidate.")
    validate_data: Any = shared.validate_data(
        "Samples that candidates are judged on, read like --data.", required=True
    )
    input_shapes: tuple[str, ...] = shared.input_shapes(fixed=True)
    mask: str | None = shared.mask()
    labels: Path | None = labels()
    classes: Any = classes()
    allow_nonfinite: bool = shared.allow_nonfinite()
    target: str = shared.target(
        "The machine, as for onnxq quantize: candidates are what it takes.", automatic=True
    )
    schemes: tuple[SchemeName, ...] = option(
        Several(Choice(SchemeName)),
        "Try this scheme only; repeatable.  [default: all that the target takes]",
        (),
        flag="--scheme",
    )
    include: tuple[str, ...] = shared.include()
    exclude: tuple[str, ...] = shared.exclude()
    exclude_operators: tuple[str, ...] = shared.exclude_operators()
    metrics: tuple[Any, ...] | None = metrics()
    outputs: tuple[str, ...] = shared.outputs()
    execution: Execution = option(
        Choice(Execution),
        "How candidates run when they are judged; emulate is exact and needs no device.",
        Execution.EMULATE,
    )
    max_drop: float | None = shared.max_drop()
    budget: float = option(
        Duration(),
        "Time for all trials, such as 90s, 10m or 1h30m: none is begun that would take longer.",
        BUDGET,
        metavar="TIME",
    )
    batch_size: int | None = shared.batch_size_by_model()
    memory: int = shared.memory()
    dask: str | None = shared.dask()
    libraries: tuple[Path, ...] = shared.libraries()
    provider: shared.Provider = shared.provider()
    state: Path | None = option(
        File(),
        "Folder of what is known so far: a run that was stopped goes on from there.",
        flag=None,
    )


class TuneKeywords(ReadingKeywords, total=False):
    """The options of `onnxq.tune` for editors; a test holds them to `TuneOptions`."""

    mask: str | None
    labels: str | os.PathLike[str] | None
    classes: Sequence[str] | str | os.PathLike[str] | None
    allow_nonfinite: bool
    target: shared.TargetName | str | os.PathLike[str]
    schemes: Sequence[SchemeName | Literal["w8a8", "w8a16", "w7a8", "w8", "w4", "dynamic", "fp8"]]
    include: Sequence[str]
    exclude: Sequence[str]
    exclude_operators: Sequence[str]
    metrics: Sequence[Any] | None
    outputs: Sequence[str]
    execution: Execution | ExecutionName
    max_drop: float | None
    budget: float | str
    batch_size: int | None
    memory: int | str
    dask: str | None
    libraries: Sequence[str | os.PathLike[str]]
    provider: shared.Provider | shared.ProviderName
    state: str | os.PathLike[str] | None
