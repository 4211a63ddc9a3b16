"""The options of `onnxq inspect` and `onnxq.inspect`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypedDict

from onnxq.options import shared
from onnxq.options.fields import Options, flag

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class InspectOptions(Options):
    """What to look at beside the quantization details."""

    command: ClassVar[str] = "inspect"

    lint: bool = flag(
        "Check a QDQ MODEL against its target's rules instead; exit code 1 if one is broken."
    )
    target: str | None = shared.target(
        "Whose rules --lint checks, in whose runtime --kernels counts, or for which a float MODEL "
        "is planned.  [default: the target that MODEL was made for; gpu for other models; "
        "--kernels: cpu]",
        None,
    )
    kernels: bool = flag("Count what the runtime of a target runs in integers instead.")
    input_shapes: tuple[str, ...] = shared.input_shapes()


class InspectKeywords(TypedDict, total=False):
    """The options of `onnxq.inspect` for editors; a test holds them to `InspectOptions`."""

    lint: bool
    target: shared.TargetName | str | os.PathLike[str] | None
    kernels: bool
    input_shapes: Sequence[str]
