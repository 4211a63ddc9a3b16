"""Whether two models take and give the same, and which of their outputs are looked at."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import TensorProto

from onnxq.closeness import is_float_type
from onnxq.data.checks import sizes
from onnxq.errors import ModelError, UsageError
from onnxq.model.containers import element_type
from onnxq.model.files import infer_shapes
from onnxq.model.model import Model, TensorSpec
from onnxq.suggest import suggest


def choose_outputs(model: Model, names: Sequence[str]) -> tuple[str, ...]:
    """The outputs named, or all of them; raises `UsageError` for one that the model lacks."""
    known = [spec.name for spec in model.outputs]
    for name in names:
        if name not in known:
            raise UsageError(
                f"{model.name} has no output {name!r}",
                hint=suggest(name, known, of="its outputs"),
            )
    return tuple(dict.fromkeys(names)) or tuple(known)


def require_float_output(
    model: Model,
    names: Sequence[str],
    metric: str,
    hint: str = "put another metric first: --metric top1 or FILE.py:name",
) -> None:
    """Refuse to decide by closeness where only integers would be compared.

    Args:
        hint: what may decide instead, for the command that asks.

    Raises:
        UsageError: none of the outputs named, or of all, is or holds floats.
    """
    chosen = choose_outputs(model, names)
    outputs = [info for info in model.message.graph.output if info.name in chosen]
    if not any(_may_hold_floats(element_type(info.type)) for info in outputs):
        raise UsageError(
            f"{metric} has nothing to look at: no float output among {', '.join(chosen)}",
            hint=hint,
        )


def _may_hold_floats(kind: int) -> bool:
    if kind == TensorProto.UNDEFINED:
        return True
    return is_float_type(onnx.helper.tensor_dtype_to_np_dtype(kind))


def check_interface(float_model: Model, quantized: Model) -> None:
    """Both must take and give tensors of the same names.

    Raises:
        ModelError: they do not.
    """
    for kind, ours, theirs in (
        ("input", float_model.inputs, quantized.inputs),
        ("output", float_model.outputs, quantized.outputs),
    ):
        names, other = [spec.name for spec in ours], [spec.name for spec in theirs]
        if names != other:
            raise ModelError(
                f"{quantized.name} is no version of {float_model.name}: "
                f"{kind}s {', '.join(other)} instead of {', '.join(names)}"
            )


def check_shape(
    float_model: Model, quantized: Model, output: str, wanted: Sequence[int], got: Sequence[int]
) -> None:
    """Let shapes differ only where they may depend on the data.

    Args:
        wanted, got: shapes of an output for the same samples.

    Raises:
        ModelError: the models themselves say that they differ.
    """
    if len(wanted) == len(got):
        fixed, other = _declared(float_model, output), _declared(quantized, output)
        pairs = zip(fixed, other, strict=False)
        if all(not isinstance(a, int) or not isinstance(b, int) or a == b for a, b in pairs):
            return
    raise ModelError(
        f"{quantized.name} is no version of {float_model.name}: its output {output!r} "
        f"has the shape {sizes(got)} instead of {sizes(wanted)}"
    )


def _declared(model: Model, output: str) -> tuple[int | str | None, ...]:
    specs: dict[str, TensorSpec] = {spec.name: spec for spec in infer_shapes(model).outputs}
    return specs[output].shape or ()
