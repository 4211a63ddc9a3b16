"""What equalization did: in a few lines, as tables and as a document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxq.report.table import Table, count, number, table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from onnxq.commands.equalize import EqualizationResult
    from onnxq.equalization.centering import Centering
    from onnxq.equalization.choose import EqualizationOptions
    from onnxq.equalization.equalize import Equalization
    from onnxq.equalization.prove import Proof
    from onnxq.model.model import Model


def summary(record: Equalization) -> Iterator[str]:
    """The lines every reader needs: what was scaled, what it brings, what proves it."""
    scaled = [each for each in record.classes if each.scaled]
    channels = sum(each.channels for each in record.classes)
    yield (
        f"scaled {sum(each.scaled for each in scaled):,} of {count(channels, 'channel')} in "
        f"{len(scaled):,} of {count(len(record.classes), 'class')}; expected gain "
        f"{record.expected_gain:.1f} dB of SQNR"
    )
    yield f"proof: {proof_text(record.proof)}"
    if record.kernels_added:
        yield f"added {count(record.kernels_added, 'kernel')}"
    if record.factors:
        number = count(len(record.factors), "tensor")
        yield f"a factor a channel, as a Mul of its own, in front of the readers of {number}"
    yield from _rolled_back(record)


def in_short(record: Equalization) -> Iterator[str]:
    """The same for who only wants to know that the model is as good as before."""
    scaled = sum(each.scaled for each in record.classes)
    if not scaled and not record.rolled_back:
        return
    channels = count(sum(each.channels for each in record.classes), "channel")
    kernels = f", {count(record.kernels_added, 'kernel')} added" if record.kernels_added else ""
    yield f"equalized: {scaled:,} of {channels} scaled, {proof_text(record.proof)}{kernels}"
    yield from _rolled_back(record)


def _rolled_back(record: Equalization) -> Iterator[str]:
    """Names what the proof spoke against."""
    if record.rolled_back:
        yield (
            "rolled back, left as they were, as scaling them would have changed the float outputs: "
            f"{', '.join(record.rolled_back)}"
        )


def chosen_for(options: EqualizationOptions) -> str:
    """What the scales were chosen for."""
    scales = "channel" if options.per_channel else "tensor"
    return f"for target {options.target}: {options.scheme}, weights per {scales}"


def centering_summary(plan: Centering) -> str:
    """One line on what was centered."""
    saved = [shift.gain for shift in plan.shifts]
    span = f", saving {min(saved):.1f} to {max(saved):.1f} dB of rounding noise" if saved else ""
    return f"centered {count(len(saved), 'activation')} around 0 by their biases{span}"


def proof_text(proof: Proof) -> str:
    """What running both models showed."""
    where = f"on {count(proof.samples, 'sample')}"
    if proof.identical:
        return f"float outputs bit-identical {where}"
    return (
        f"float outputs differ by at most {proof.difference:.2g} of the largest, "
        f"{proof.sqnr:.1f} dB SQNR, {where}"
    )


def tables(record: Equalization) -> Iterator[Table]:
    """Classes, Clips and barriers."""
    yield table(
        "Class | >Channels | >Scaled | >log2 s | >Weight spread | >Gain (dB)",
        [
            (
                each.tensors[0], str(each.channels), str(each.scaled),
                f"{each.exponents[0]:.3g}…{each.exponents[1]:.3g}",
                f"{number(each.spread_before, 3)} → {number(each.spread_after, 3)}",
                f"{round(each.gain, 1) + 0.0:.1f}",
            )
            for each in record.classes
        ],
        title="Scale classes",
    )  # fmt: skip
    yield table(
        "Class | Tensors | Producers | Consumers",
        [
            (each.tensors[0], *("\n".join(names) for names in
                                (each.tensors, each.producers, each.consumers)))
            for each in record.classes
        ],
        title="Members",
    )  # fmt: skip
    yield table(
        "Clip | Mode | >Channels | >Saturating",
        [
            (clip.node, clip.mode, str(clip.channels),
             str(clip.saturating) if clip.saturating >= 0 else "unknown")
            for clip in record.clips
        ],
        title="Saturating Clips",
    )  # fmt: skip
    yield table(
        "Barrier | Operator | Tensor | Reason",
        [(each.node, each.op_type, each.tensor, each.reason) for each in record.barriers],
        title="Barriers",
    )


def centering_tables(plan: Centering) -> Iterator[Table]:
    """What was centered and what was not."""
    yield table(
        "Centered | >Offset | >Saved (dB) | Absorbed by",
        [
            (shift.tensor, span(shift.offset), f"{shift.gain:.1f}", "\n".join(shift.readers))
            for shift in plan.shifts
        ],
        title="Activations centered",
    )
    yield table(
        "Node | Reason", [(name, reason) for name, reason in plan.refused.items()],
        title="Not centered",
    )  # fmt: skip


def span(values: NDArray[np.float64]) -> str:
    """One number, or the smallest and the largest of several."""
    low, high = float(values.min()), float(values.max())
    return f"{low:.3g}" if low == high else f"{low:.3g}…{high:.3g}"


def centering_document(plan: Centering) -> dict[str, Any]:
    """What was centered and what was not, for `--json`."""
    return {
        "centered": [
            {
                "producer": shift.producer, "limits": shift.limits, "tensor": shift.tensor,
                "offset": shift.offset, "readers": shift.readers, "saved_db": shift.gain,
            }
            for shift in plan.shifts
        ],
        "refused": plan.refused,
    }  # fmt: skip


def record_document(record: Equalization) -> dict[str, Any]:
    """The record without its scales, which are in the model's weights."""
    return {
        "options": record.options,
        "classes": record.classes,
        "clips": record.clips,
        "barriers": record.barriers,
        "expected_gain_db": record.expected_gain,
        "proof": record.proof,
        "kernels_added": record.kernels_added,
        "rolled_back": record.rolled_back,
        "factors": record.factors,
    }


def document(model: Model, result: EqualizationResult, output: Path) -> dict[str, Any]:
    """The document of `onnxq equalize --json`."""
    return {
        "model": model.source,
        "output": output,
        "normalization": result.normalization,
        "calibration_samples": result.calibration.samples if result.calibration else 0,
        **record_document(result.equalization),
        "absorption": result.centering and centering_document(result.centering),
        "change": result.change,
    }
