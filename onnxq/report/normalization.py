"""What normalization did that a reader should know, in a few lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.report.table import count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnxq.model.normalize import Normalization


def summary(done: Normalization) -> Iterator[str]:
    """What became of operators that only ONNX Runtime knows; nothing where there are none."""
    if done.taken_apart:
        worst = max(done.taken_apart.values())
        yield (
            f"took {count(len(done.taken_apart), 'fused operator')} of ONNX Runtime apart: "
            f"differences up to {worst:.1e} of the rms"
        )
    if done.plugins:
        yield (
            f"left {', '.join(done.plugins)} at the end as it is: ONNX Runtime does not know it; "
            "what it reads is measured"
        )
    for name, reason in done.left_fused.items():
        yield f"left {name} as it is: {reason}"
