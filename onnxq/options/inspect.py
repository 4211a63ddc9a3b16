"""The options of `onnxq inspect` and `onnxq.inspect`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypedDict

from onnxq.errors import UsageError
from onnxq.options import shared
from onnxq.options.fields import Options, flag

if TYPE_CHECKING:
    import os


@dataclass(frozen=True, kw_only=True)
class InspectOptions(Options):
    """What to look at beside the quantization details."""

    command: ClassVar[str] = "inspect"

    lint: bool = flag(
        "Check a QDQ MODEL against its target's rules instead; exit code 1 if one is broken."
    )
    target: str | None = shared.target(
        "Whose rules --lint checks, and in whose runtime --kernels counts.  [default: the target "
        "that MODEL was made for, gpu where another tool wrote it; --kernels: cpu]",
        None,
    )
    kernels: bool = flag("Count what the runtime of a target runs in integers instead.")

    def check(self) -> None:
        if self.target is not None and not (self.lint or self.kernels):
            raise UsageError(
                "--target says whose rules --lint checks, and where --kernels counts",
                hint="give --lint too, or --kernels",
            )


class InspectKeywords(TypedDict, total=False):
    """The options of `onnxq.inspect` for editors; a test holds them to `InspectOptions`."""

    lint: bool
    target: shared.TargetName | str | os.PathLike[str] | None
    kernels: bool
