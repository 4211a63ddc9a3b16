"""The options of `onnxq validate` and `onnxq.validate`."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from onnxq.options import shared
from onnxq.options.fields import flag, option
from onnxq.options.kinds import Choice, Several
from onnxq.options.reading import ReadingKeywords, ReadingOptions
from onnxq.options.values import File, TextOr

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence


class Execution(enum.Enum):
    """How a quantized model runs; see `onnxq.validation.execute`."""

    EMULATE = "emulate"
    SATURATE = "saturate"
    CPU = "cpu"
    CUDA = "cuda"
    OPENVINO = "openvino"
    QNN = "qnn"


ExecutionName = Literal["emulate", "saturate", "cpu", "cuda", "openvino", "qnn"]


def executions() -> Any:
    """Of commands that compare models."""
    return option(
        Several(Choice(Execution)),
        "How quantized models run; saturate emulates x86 without VNNI; repeatable.",
        (Execution.EMULATE,),
        flag="--execution",
    )


def classes() -> Any:
    """Of commands that measure tasks."""
    return option(
        TextOr("a file or a list of names", lambda value: isinstance(value, (list, tuple))),
        "Names of MODEL's classes in its order, one a line or as JSON: what class folders are "
        "called.",
        metavar="FILE",
        recorded=False,
    )


def labels() -> Any:
    """Of commands that measure tasks."""
    return option(
        File(),
        "The truth, for metrics of tasks: COCO .json, a folder of YOLO's .txt or of masks, texts, "
        "numbers.  [default: what the data hold, else the float model's own outputs]",
        metavar="FILE",
        recorded=False,
    )


def metrics() -> Any:
    """Of commands that compare models."""
    return option(
        Several(TextOr("the name of a metric, FILE.py:name or a metric", callable)),
        "top1, top5, sqnr, cosine, map, miou, cer, wer, spearman or FILE.py:name; repeatable; "
        "gates look at the first.  "
        "[default: top1 if there are labels, sqnr, cosine]",
        flag="--metric",
        metavar="METRIC",
    )


@dataclass(frozen=True, kw_only=True)
class ValidateOptions(ReadingOptions):
    """How to compare quantized models with the float one; `metrics` left out go by the data."""

    command: ClassVar[str] = "validate"

    classes: Any = classes()
    labels: Path | None = labels()
    metrics: tuple[Any, ...] | None = metrics()
    outputs: tuple[str, ...] = shared.outputs()
    executions: tuple[Execution, ...] = executions()
    max_drop: float | None = shared.max_drop()
    min_accuracy: float | None = shared.min_accuracy()
    layers: bool = flag(
        "Rank each quantized model's layers by their share of its output error; takes two to "
        "four times as long."
    )
    latency: bool = flag("Time the models too, each against the float one; see onnxq bench.")
    mask: str | None = shared.mask()
    batch_size: int | None = shared.batch_size_by_model()
    memory: int = shared.memory()
    dask: str | None = shared.dask()
    libraries: tuple[Path, ...] = shared.libraries()
    provider: shared.Provider = shared.provider()


class ValidateKeywords(ReadingKeywords, total=False):
    """The options of `onnxq.validate` for editors; a test holds them to `ValidateOptions`."""

    classes: Sequence[str] | str | os.PathLike[str] | None
    labels: str | os.PathLike[str] | None
    metrics: Sequence[Any] | None
    outputs: Sequence[str]
    executions: Sequence[Execution | ExecutionName]
    max_drop: float | None
    min_accuracy: float | None
    layers: bool
    latency: bool
    mask: str | None
    batch_size: int | None
    memory: int | str
    dask: str | None
    libraries: Sequence[str | os.PathLike[str]]
    provider: shared.Provider | shared.ProviderName
