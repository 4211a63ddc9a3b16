"""The options with which commands read data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from onnxq.options import shared
from onnxq.options.fields import Options

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class ReadingOptions(Options):
    """Which data, and how they become samples, for a command that cannot do without."""

    data: Any = shared.data(required=True)
    preprocess: Any = shared.preprocess()
    tokenizer: Path | None = shared.tokenizer()
    samples: int | None = shared.samples()
    states: tuple[str, ...] = shared.states()
    input_shapes: tuple[str, ...] = shared.input_shapes()


class ReadingKeywords(TypedDict, total=False):
    """The same for editors."""

    tokenizer: str | os.PathLike[str] | None
    states: Sequence[str]
    input_shapes: Sequence[str]
    samples: int | None
