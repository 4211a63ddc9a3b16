"""What normalization did that a reader should know, in a few lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxq.report.table import count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnxq.model.doubles import NarrowedDoubles
    from onnxq.model.normalize import Normalization


def summary(done: Normalization) -> Iterator[str]:
    """What became of float64 and of operators that only ONNX Runtime knows, where there are any."""
    if done.narrowed is not None:
        yield _narrowed(done.narrowed)
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


def _narrowed(done: NarrowedDoubles) -> str:
    """How a float64 model became float32, and what that changed."""
    says = f"{count(done.tensors, 'float64 tensor')} narrowed to float32"
    if done.difference is None:
        return f"{says}; the difference to the file as given was not measured"
    samples = count(done.samples, "random sample" if done.random else "sample")
    return (
        f"{says}: outputs differ from the file's by {done.difference:.1e} of the rms on {samples}"
    )
