"""The options of `onnxq inspect` and `onnxq.inspect`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypedDict

from onnxq.options.fields import Options, flag


@dataclass(frozen=True, kw_only=True)
class InspectOptions(Options):
    """What to look at beside the quantization details."""

    command: ClassVar[str] = "inspect"

    lint: bool = flag(
        "Check a QDQ MODEL against TensorRT's rules instead; exit code 1 if one is broken."
    )
    kernels: bool = flag("Count what ONNX Runtime's CPU provider runs in integers instead.")


class InspectKeywords(TypedDict, total=False):
    """The options of `onnxq.inspect` for editors; a test holds them to `InspectOptions`."""

    lint: bool
    kernels: bool
