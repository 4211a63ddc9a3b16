"""The options of `onnxq explain` and `onnxq.explain`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

from onnxq.options import shared
from onnxq.options.fields import Options

if TYPE_CHECKING:
    import os


@dataclass(frozen=True, kw_only=True)
class ExplainOptions(Options):
    """For what a float model is planned."""

    command: ClassVar[str] = "explain"

    calibration: Any = shared.calibration()
    target: str = shared.target("For which a float MODEL is planned.")


class ExplainKeywords(TypedDict, total=False):
    """The options of `onnxq.explain` for editors; a test holds them to `ExplainOptions`."""

    target: shared.TargetName | str | os.PathLike[str]
