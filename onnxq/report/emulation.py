"""What the emulator computed: a summary, tables, a document."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from onnxq.emulation.emulate import NO_PAIRS
from onnxq.emulation.layers import Accumulation, AsWritten, Fused, Integer, IntegerProduct
from onnxq.formats.accumulators import Accumulator, accumulator_of
from onnxq.model.status import Float
from onnxq.report.table import Table, count, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from onnxq.emulation.agreement import LayerAgreement
    from onnxq.emulation.emulate import Emulation, Saturation
    from onnxq.model.model import Model


def summary(record: Emulation) -> Iterator[str]:
    """The lines everybody sees."""
    kinds = Counter(type(status) for status in record.plan.values())
    integer = sum(isinstance(status, Integer) for status in record.plan.values())
    yield (
        f"{count(len(record.plan), 'node')}: {integer} summed or multiplied in integers, "
        f"{kinds[AsWritten]} on quantized values, {kinds[Fused]} fused, {kinds[Float]} in float"
    )
    measured = [s for s in record.plan.values() if isinstance(s, Integer) and not proved(s)]
    if not measured:
        if integer:
            yield "no sum can leave its accumulator (proved from the weights)"
    elif not record.overflows:
        where = count(len(measured), "node")
        yield f"no sum left its accumulator (measured in {where}, else proved)"
    if record.saturations:
        yield saturation_text(record.saturations)
    for node, beyond in record.overflows.items():
        yield f"overflow: {count(beyond, 'sum')} of {node} left int32 and wrapped around"


def filled_text(record: Emulation) -> str:
    """Which outputs hold samples of several shapes."""
    return (
        f"samples of several shapes, filled up with zeros: {', '.join(record.sizes)}; "
        "NAME.sizes beside it has each one's"
    )


def left_out_text(record: Emulation) -> str:
    """Which outputs are not there, and why."""
    found = ", ".join(f"{name} is {what}" for name, what in record.left_out.items())
    return f"outputs left out, as no array holds them: {found}"


def saturation_text(found: Mapping[str, Saturation]) -> str:
    """How many sums of pairs saturated, and where most."""
    pairs = sum(each.pairs for each in found.values())
    saturated = sum(each.saturated for each in found.values())
    share = _percent(saturated, pairs)
    text = f"{saturated:,} of {count(pairs, 'pair')} of products saturated in 16 bits ({share})"
    worst = max(found, key=lambda node: found[node].saturated / max(found[node].pairs, 1))
    if not saturated:
        return text
    return f"{text}; most in {worst} ({_percent(found[worst].saturated, found[worst].pairs)})"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.2g} %"


def accumulator(status: Integer) -> Accumulator:
    """What the sums of a node are computed in."""
    if isinstance(status, (Accumulation, IntegerProduct)):
        return status.accumulator
    data = status.data if isinstance(status.data, tuple) else (status.data,)
    return accumulator_of(*(each.format for each in data))


def proved(status: Integer) -> bool:
    """Whether the weights alone say that no sum leaves the accumulator."""
    return status.reach.fits(accumulator(status))


def layer_table(record: Emulation) -> Table:
    """Everything that is computed on integers."""
    return table(
        "Node | Operator | Computes | Result | >Largest sum | >Parts | Fused",
        [
            (
                node,
                record.operators[node],
                status.form.value,
                _result(status),
                f"{status.reach.largest:.4g}" if isinstance(status, Integer) else "–",
                str(_parts(status)) if isinstance(status, Integer) else "–",
                ", ".join(_fused(record, node)),
            )
            for node, status in record.plan.items()
            if isinstance(status, (Integer, AsWritten))
        ],
        title="On integers",
    )


def agreement_text(layers: Sequence[LayerAgreement]) -> str:
    """How emulator and ONNX Runtime agree, in a line."""
    if not layers:
        return "no layer to compare: nothing is quantized"
    values = sum(each.values for each in layers)
    differing = sum(each.differing for each in layers)
    largest = max((each.largest for each in layers), default=0)
    return (
        f"{count(len(layers), 'layer')} compared, {count(values, 'value')}: {differing:,} differ "
        f"({100 * differing / max(values, 1):.2g} %), by at most {count(largest, 'step')} (LSB)"
    )


def agreement_table(layers: Sequence[LayerAgreement]) -> Table:
    """Layers that differ, and why."""
    return table(
        "Layer | Kernels | >Differ (%) | >Largest (LSB) | Reason",
        [
            (each.node, ", ".join(each.kernels), f"{100 * each.share:.2g}", str(each.largest),
             each.reason)
            for each in layers if each.differing
        ],
        title="Layers that differ",
    )  # fmt: skip


def float_table(record: Emulation) -> Table:
    """Everything that runs in float, and why."""
    return table(
        "Node | Operator | Reason",
        [
            (node, record.operators[node], status.reason)
            for node, status in record.plan.items()
            if isinstance(status, Float)
        ],
        title="In float",
    )


def _fused(record: Emulation, node: str) -> list[str]:
    return [
        name for name, status in record.plan.items()
        if isinstance(status, Fused) and status.into == node
    ]  # fmt: skip


def _result(status: Integer | AsWritten) -> str:
    """Format of the result; "–" where it is that of several tensors."""
    if isinstance(status, AsWritten):
        return status.format or "–"
    requantization = status.requantization
    return requantization.to.format.name if requantization else "float"


def _parts(status: Integer) -> int:
    return max(len(status.parts), 1) if isinstance(status, (Accumulation, IntegerProduct)) else 1


def _pairs(record: Emulation, node: str) -> Saturation:
    return record.saturations.get(node, NO_PAIRS)


def document(model: Model, record: Emulation, output: Path | None) -> dict[str, Any]:
    """The document of `onnxq emulate --json`."""
    return {
        "model": model.source or model.name,
        "output": output,
        "samples": record.samples,
        "note": record.note,
        "outputs": [
            {"name": name, "dtype": str(array.dtype), "shape": list(array.shape)}
            for name, array in record.outputs.items()
        ],
        "left_out": [{"name": name, "is": what} for name, what in record.left_out.items()],
        "layers": [
            {
                "node": node, "op_type": record.operators[node], "computes": status.form,
                "result": _result(status),
                "largest_sum": status.reach.largest, "proved": proved(status),
                "parts": _parts(status), "overflows": record.overflows.get(node, 0),
                "pairs": _pairs(record, node).pairs,
                "saturated_pairs": _pairs(record, node).saturated,
                "fused": _fused(record, node),
            }
            for node, status in record.plan.items() if isinstance(status, Integer)
        ],
        "on_quantized_values": [
            {
                "node": node, "op_type": record.operators[node], "computes": status.form,
                "result": _result(status), "fused": _fused(record, node),
            }
            for node, status in record.plan.items() if isinstance(status, AsWritten)
        ],
        "float_nodes": [
            {"node": node, "op_type": record.operators[node], "reason": status.reason}
            for node, status in record.plan.items() if isinstance(status, Float)
        ],
    }  # fmt: skip
