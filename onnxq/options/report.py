"""The options of `onnxq report` and `onnxq.report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

from onnxq.options import shared
from onnxq.options.fields import Options, flag, switch
from onnxq.options.validate import (
    Execution,
    ExecutionName,
    classes,
    executions,
    labels,
    metrics,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class ReportOptions(Options):
    """What the page is made from."""

    command: ClassVar[str] = "report"

    calibration: Any = shared.calibration()
    data: Any = shared.data(extra=" Measures accuracy, SQNR and each layer's error.")
    preprocess: Any = shared.preprocess()
    tokenizer: Path | None = shared.tokenizer()
    samples: int | None = shared.samples()
    states: tuple[str, ...] = shared.states()
    input_shapes: tuple[str, ...] = shared.input_shapes()
    mask: str | None = shared.mask()
    classes: Any = classes()
    labels: Path | None = labels()
    metrics: tuple[Any, ...] | None = metrics()
    batch_size: int | None = shared.batch_size_by_model()
    memory: int = shared.memory()
    outputs: tuple[str, ...] = shared.outputs()
    executions: tuple[Execution, ...] = executions()
    provider: shared.Provider = shared.provider()
    layers: bool = switch(
        "Measure each layer's error, which takes some four times as long as the rest.",
        default=True,
    )
    latency: bool = flag("Time the models too, each against MODEL, on this machine's CPU.")
    max_drop: float | None = shared.max_drop()
    min_accuracy: float | None = shared.min_accuracy()

    def check(self) -> None:
        shared.require_data(
            self,
            "preprocess",
            "tokenizer",
            "mask",
            "samples",
            "labels",
            "metrics",
            "max_drop",
            "min_accuracy",
        )


class ReportKeywords(TypedDict, total=False):
    """The options of `onnxq.report` for editors; a test holds them to `ReportOptions`."""

    tokenizer: str | os.PathLike[str] | None
    states: Sequence[str]
    input_shapes: Sequence[str]
    samples: int | None
    mask: str | None
    classes: Sequence[str] | str | os.PathLike[str] | None
    labels: str | os.PathLike[str] | None
    metrics: Sequence[Any] | None
    batch_size: int | None
    memory: int | str
    outputs: Sequence[str]
    executions: Sequence[Execution | ExecutionName]
    provider: shared.Provider | shared.ProviderName
    layers: bool
    latency: bool
    max_drop: float | None
    min_accuracy: float | None
