"""The options of `onnxq explain` and `onnxq.explain`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

from onnxq.errors import UsageError
from onnxq.options import shared
from onnxq.options.fields import Options

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class ExplainOptions(Options):
    """For what a float model is planned."""

    command: ClassVar[str] = "explain"

    calibration: Any = shared.calibration()
    target: str = shared.target("For which a float MODEL is planned.")
    input_shapes: tuple[str, ...] = shared.input_shapes()

    def check(self) -> None:
        """Raise `UsageError` for what excludes each other."""
        if self.calibration is not None and self.input_shapes:
            raise UsageError(
                "--input-shape is for random samples, and --calibration takes their place",
                hint="leave one of them out",
            )


class ExplainKeywords(TypedDict, total=False):
    """The options of `onnxq.explain` for editors; a test holds them to `ExplainOptions`."""

    target: shared.TargetName | str | os.PathLike[str]
    input_shapes: Sequence[str]
