"""Quantization details: a few lines, tables, a document."""

from __future__ import annotations

from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from onnxq.report.reasons import by_reason
from onnxq.report.table import Table, count, table
from onnxq.validation.kernels import CPU
from onnxq.validation.runtimes import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from onnxq.model.graph import Graph
    from onnxq.model.model import Model
    from onnxq.quantization.details import Details
    from onnxq.validation.kernels import Kernel
    from onnxq.validation.lint import Finding


FOLDED: Mapping[str, str] = MappingProxyType({
    "folded_batch_norms": "folded batch norm",
    "folded_pads": "folded padding",
    "joined_biases": "joined bias",
    "folded_factors": "folded factor",
    "merged_limits": "merged limit",
})  # fmt: skip
"""Kinds of nodes that another took up, see `onnxq.model.normalize.FOLDS`, for people."""


def summary(model: Model, details: Details) -> Iterator[str]:
    """What the model is."""
    yield f"Model: {model.source or model.name}, opset {model.opset}, {model.size / 1e6:.2f} MB"
    for label, specs in (("Inputs", model.inputs), ("Outputs", model.outputs)):
        yield f"{label}: {', '.join(map(str, specs))}"
    yield f"Quantized: {'yes' if details.is_quantized else 'no'}"
    if not details.is_quantized:
        return
    yield f"Target: {details.target or 'unknown, another tool wrote it'}"
    yield f"Quantized layers: {len(details.layers):,}"
    for name, number in Counter(each.format for each in details.activations).items():
        yield f"Activations in {name}: {number:,}"


def tables(details: Details, graph: Graph | None = None) -> Iterator[Table]:
    """Layers, folded batch norms and fused activations among them; learnables; float nodes.

    Args:
        graph: the model's, to gather float nodes by their reasons; None lists each.
    """
    gone = {name: words for kind, words in FOLDED.items() for name in details.record.get(kind, {})}
    yield table(
        "Layer | Operator",
        [(name, details.operators.get(name) or gone.get(name, "")) for name in details.layers],
        title="Quantized layers",
    )
    yield table(
        "Layer | Parameter | >Value",
        [(each.layer, each.parameter, each.value) for each in details.learnables],
        title="Learnables",
    )
    yield float_table(details) if graph is None else by_reason(graph, details.float_nodes)


def float_table(details: Details) -> Table:
    """Each node that stays in float, and why."""
    return table(
        "Node | Operator | Reason",
        [(name, details.operators.get(name, ""), why) for name, why in details.float_nodes.items()],
        title="Left in float",
    )


def lint_summary(findings: Sequence[Finding], target: str) -> str:
    """How it came out, in a line."""
    if not findings:
        return f"Rules of target {target}: none is broken"
    broken = count(len({each.rule for each in findings}), "rule")
    return f"Rules of target {target}: {broken} broken in {count(len(findings), 'place')}"


def lint_table(findings: Sequence[Finding], target: str) -> Table:
    """Each node that breaks a rule, and what to do."""
    return table(
        "Rule | Node | Finding | Advice",
        [(each.rule, each.node, each.detail, each.advice) for each in findings],
        title=f"Rules of target {target}",
    )


def kernel_summary(found: Sequence[Kernel], runtime: str = CPU) -> str:
    """How many run in integers, and how many of those with a weight."""
    weighted = [each for each in found if each.weighted]
    called = RUNTIMES.get(runtime, "ONNX Runtime's CPU provider")
    return (
        f"{called}: {_integer(found):,} of {count(len(found), 'eligible node')} run in integers, "
        f"{_integer(weighted):,} of {len(weighted):,} with a weight"
    )


def _integer(found: Sequence[Kernel]) -> int:
    return sum(each.integer for each in found)


def kernel_table(found: Sequence[Kernel], *, whole: bool) -> Table:
    """What runs in float and why; the integer kernels too where `whole`."""
    return table(
        "Node | Operator | Kernel | Reason",
        [
            (each.node, each.op_type, each.kernel or "–", each.reason)
            for each in found if whole or not each.integer
        ],
        title="Kernels" if whole else "Not in integers",
    )  # fmt: skip


def document(model: Model, details: Details) -> dict[str, Any]:
    """The document of `onnxq inspect --json`."""
    return {
        "model": model.source,
        "opset": model.opset,
        "size_bytes": model.size,
        "inputs": [str(spec) for spec in model.inputs],
        "outputs": [str(spec) for spec in model.outputs],
        "is_quantized": details.is_quantized,
        "target": details.target,
        "quantized_layers": details.layers,
        "quantized_layer_count": len(details.layers),
        "learnables": [
            {
                "layer": each.layer, "parameter": each.parameter, "value": each.value,
                "format": each.format, "granularity": each.granularity, "shape": each.shape,
            }
            for each in details.learnables
        ],
        "activations": details.activations,
        "float_nodes": [
            {"node": name, "reason": reason} for name, reason in details.float_nodes.items()
        ],
        "record": details.record,
    }  # fmt: skip
