"""What quantization did, or would do: in a few lines, as tables and as a document."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from onnxq.closeness import worst
from onnxq.data.checks import sizes
from onnxq.model.static import open_inputs
from onnxq.model.status import Quantized
from onnxq.options.quantize import QuantizeOptions
from onnxq.quantization.request import LOW_SQNR
from onnxq.quantization.weighed import Estimate
from onnxq.report import account
from onnxq.report import equalization as equalization_report
from onnxq.report import normalization as normalization_report
from onnxq.report.nodes import describe, wider_scheme
from onnxq.report.outputs import output_document
from onnxq.report.raised import mixed_text, search_text
from onnxq.report.table import count, in_decibels
from onnxq.targets import Shapes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from onnxq.equalization.prepare import Trial
    from onnxq.model.model import Model
    from onnxq.quantization.clipping import Clipped
    from onnxq.quantization.interface import IntegerInterface
    from onnxq.quantization.request import QuantizationResult
    from onnxq.quantization.shares import Uneven
    from onnxq.quantization.weighed import Weighed


NAMED = 3
"""Tensors or nodes that a line names; the document has all."""

FEW = "uncertain, with too few samples to hold any out: others may do worse"
"""Said of an estimate on samples that the model was made with."""

ALONE = "one sample does not tell how far that may be off"
"""Said of an estimate on one sample."""


def summary(result: QuantizationResult, *, whole: bool = True) -> Iterator[str]:
    """The lines every reader needs; how the model came about too where `whole`."""
    plan = result.plan
    statuses = [each for each in plan.nodes.values() if isinstance(each, Quantized)]
    fused = sum(1 for each in statuses if each.fused_into)
    folded = len(result.normalization.folded_batch_norms)
    yield (
        f"target {plan.target.name}: {len(statuses) - fused:,} of "
        f"{count(len(plan.nodes), 'node')} in {plan.scheme}, {fused:,} more fused into them; "
        f"{count(folded, 'batch norm')} folded"
    )
    said = wider_scheme(plan)
    wider = [n for n, each in plan.nodes.items() if said and describe(each, plan)[1] == said]
    if wider:
        named = ", ".join(wider[:NAMED]) + (" and others" if len(wider) > NAMED else "")
        yield f"{count(len(wider), 'node')} of them {said}: {named}"
    yield from normalization_report.summary(result.normalization)
    yield from _open_sizes(result)
    if whole:
        yield from _prepared(result)
        yield from _settled(result)
    elif result.equalization is not None:
        yield from equalization_report.in_short(result.equalization)
    if result.uneven:
        yield uneven_text(result.uneven)
    if result.clipped:
        yield clipped_text(result.clipped, result.plan.options.ranges)
    if result.interface is not None:
        yield from interface_text(result.interface)
    yield from verdict(result)
    if result.mixed is not None:
        yield mixed_text(result.mixed)
    if result.search is not None:
        yield search_text(result.search)


_WITHOUT_SIZES = {
    Shapes.BATCH: "with an open number of samples some models lose accuracy there",
    Shapes.STATIC: "with an open one all of it runs in float on the CPU",
}
"""What comes of sizes that the target wants to know."""


def _open_sizes(result: QuantizationResult) -> Iterator[str]:
    """Says where the runtime would not do what the model is made for, without an error."""
    target, model = result.plan.target, result.prepared.model
    said = _WITHOUT_SIZES.get(target.shapes)
    opened = open_inputs(model) if said else ()
    if opened:
        first = opened[0]
        fixed = "x".join(str(n) if isinstance(n, int) else "1" for n in first.shape or (1,))
        yield (
            f"warning: target {target.name} wants inputs of fixed sizes, {first.name!r} is "
            f"{sizes(first.shape or ('?',))}: {said}; --input-shape {first.name}:{fixed} fixes it"
        )


def _prepared(result: QuantizationResult) -> Iterator[str]:
    """What was done to the float model."""
    if result.prepared.trials:
        yield trials_text(result.prepared.trials)
    if result.plan.scheme.floating:
        yield "not equalized: the steps of floating-point numbers grow with the values"
    if any(not each.is_usual for each in result.ranges):
        yield ranges_text(result.ranges)
    if result.equalization is not None:
        yield from equalization_report.summary(result.equalization)
        if result.equalization.clips:
            mode = result.equalization.options.relu6
            yield f"saturating Clips: {mode} ({result.relu6_reason})"
    if result.centering is not None:
        yield equalization_report.centering_summary(result.centering)
    if math.isfinite(result.float_sqnr):
        yield f"float model: changed by {-result.float_sqnr:.1f} dB on {_samples(result)}"


def _settled(result: QuantizationResult) -> Iterator[str]:
    """What was done to weights, biases and the float remainder."""
    if result.roundings:
        adaptive = sum(record.adaptive for record in result.roundings)
        layers = count(len(result.roundings), "layer")
        yield f"rounded the weights of {adaptive:,} of {layers} adaptively"
    if result.corrections:
        accepted = sum(record.accepted for record in result.corrections)
        yield f"corrected the biases of {accepted:,} of {count(len(result.corrections), 'layer')}"
    if result.narrowing is not None:
        kept = len(result.narrowing.kept)
        yield (
            f"float remainder: {count(result.narrowing.nodes, 'node')} in float16, "
            f"{kept:,} kept in float32"
        )


def ranges_text(ranges: Sequence[Weighed]) -> str:
    """How many ranges follow from what errors cost at the outputs."""
    narrower = sum(each.chosen is Estimate.GRADIENT for each in ranges)
    wider = sum(each.chosen is not Estimate.BEHIND for each in ranges) - narrower
    refused = sum(bool(each.why_not) for each in ranges)
    back = f", {count(refused, 'narrower one')} taken back" if refused else ""
    return (
        f"ranges by their cost at the outputs: {wider:,} of {len(ranges):,} clip less for it, "
        f"{narrower:,} more{back}"
    )


def interface_text(interface: IntegerInterface) -> Iterator[str]:
    """What the integers of inputs and outputs stand for."""
    for name, each in interface.tensors.items():
        yield (
            f"{name!r} is {each.format}: real = (number − {int(each.zero_point)}) × "
            f"{float(each.scale):.9g}"
        )
    for name, reason in interface.refused.items():
        yield f"{name!r} stays float: {reason}"


def trials_text(trials: Sequence[Trial]) -> str:
    """The ways to prepare the model that were tried."""

    def told(trial: Trial) -> str:
        taken = "" if math.isnan(trial.final) else " (taken)"
        return f"{trial.name} {in_decibels(trial.sqnr)}{taken}"

    return f"tried, with weights rounded to nearest: {'; '.join(map(told, trials))}"


def verdict(result: QuantizationResult) -> Iterator[str]:
    """How close the model came out, and where the error is if it did not."""
    if math.isnan(result.quantized_sqnr):
        return
    part = worst(result.closeness, lambda each: each.sqnr)
    several = part is not None and sum(len(each.parts) for each in result.closeness) > 1
    where = f" in {part.label}" if part is not None and several else ""
    error = result.quantized_sqnr_error
    sqnr = f"{in_decibels(result.quantized_sqnr, error)} SQNR"
    yield f"quantized against float: {sqnr} on {_samples(result)}{where}{_doubt(result)}"
    if result.quantized_sqnr < LOW_SQNR:
        yield low_text(result)


def _doubt(result: QuantizationResult) -> str:
    """Why the estimate is less than it looks."""
    measured = result.measured_on
    if measured is None:
        return ""
    few = f"; {FEW}" if not measured.held_out else ""
    return few + (f"; {ALONE}" if measured.samples == 1 else "")


def low_text(result: QuantizationResult) -> str:
    """Says of a result that is hardly of use that it is, and where that comes from."""
    says = f"this is less than {LOW_SQNR:.0f} dB"
    if not result.costliest:
        return f"{says}; onnxq validate --layers ranks the layers by what they cost"
    named = ", ".join(f"{each.node} ({each.share:.0f} %)" for each in result.costliest)
    return f"{says}; these cost most of all layers: {named}; --exclude keeps layers in float"


def _samples(result: QuantizationResult) -> str:
    """What the estimates rest on."""
    measured = result.measured_on
    left_out = max((each.left_out for each in result.closeness), default=0.0)
    padding = f", without the {left_out:.0f} % that is padding" if left_out else ""
    if measured is None or measured.held_out:
        return f"held-out samples{padding}"
    number = count(measured.samples, "sample")
    return f"the {number} it was made with{padding}"


def uneven_text(uneven: Sequence[Uneven]) -> str:
    """Names tensors whose scale is coarse for them because others share it, the worst first."""
    named = "; ".join(
        f"{each.tensor!r} has one with {each.shares_with!r}, whose range is "
        f"{each.ratio:,.0f} times its own"
        for each in uneven[:NAMED]
    )
    rest = len(uneven) - NAMED
    more = f"; and {count(rest, 'other tensor')}, all in --json" if rest > 0 else ""
    return f"one scale for ranges far apart: {named}{more}"


def clipped_text(clipped: Sequence[Clipped], ranges: str) -> str:
    """Names tensors whose ranges cost more than they save, the worst first."""
    usual = QuantizeOptions.ranges.value
    instead = "" if ranges == usual else f"; --ranges {usual} clips where it pays only"
    named = "; ".join(
        f"{each.tensor!r} holds {each.smallest:.3g} to {each.largest:.3g}, its range "
        f"{each.low:.3g} to {each.high:.3g}, {each.loss_db:.1f} dB more error than without clipping"
        for each in clipped[:NAMED]
    )
    rest = len(clipped) - NAMED
    more = f"; and {count(rest, 'other tensor')}, all in --json" if rest > 0 else ""
    return f"warning: ranges clip values that matter: {named}{more}{instead}"


def document(
    model: Model,
    result: QuantizationResult,
    operators: Mapping[str, str],
    output: Path | None,
    seconds: float,
) -> dict[str, Any]:
    """The document of `onnxq quantize --json`.

    Args:
        output: None for a dry run.
        seconds: that it took.
    """
    plan = result.plan
    nodes = []
    for name, status in plan.nodes.items():
        becomes, reason = describe(status, plan)
        nodes.append({
            "node": name, "operator": operators.get(name, ""), "becomes": becomes, "reason": reason,
        })  # fmt: skip
    equalization = result.equalization
    return {
        "model": model.source,
        "output": output,
        "target": plan.target.name,
        "scheme": plan.scheme,
        "formats": plan.scheme.formats,
        "options": plan.options,
        "normalization": result.normalization,
        "equalization": equalization and equalization_report.record_document(equalization),
        "trials": [
            {"name": t.name, "sqnr_db": t.sqnr, "final_sqnr_db": t.final}
            for t in result.prepared.trials
        ],
        "absorption": result.centering and equalization_report.centering_document(result.centering),
        "relu6_reason": result.relu6_reason,
        "float_sqnr_db": result.float_sqnr,
        "quantized_sqnr_db": result.quantized_sqnr,
        "quantized_sqnr_error_db": result.quantized_sqnr_error,
        "measured_on": result.measured_on,
        "costliest": result.costliest,
        "outputs": [output_document(each) for each in result.closeness],
        "ranges": result.ranges,
        "uneven_scales": result.uneven,
        "harmful_clips": result.clipped,
        "roundings": result.roundings,
        "bias_corrections": result.corrections,
        "mixed": result.mixed,
        "search": result.search,
        "float16": result.narrowing,
        "account": account.document(result, seconds),
        "interface": result.interface
        and {
            "tensors": {
                name: {
                    "format": each.format,
                    "scale": float(each.scale),
                    "zero_point": int(each.zero_point),
                }
                for name, each in result.interface.tensors.items()
            },
            "refused": result.interface.refused,
        },
        "nodes": nodes,
    }
