"""What quantization came to: one line, what stays in float by its reasons, what to do next."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING, Any

from onnxq.formats.table import FORMATS
from onnxq.model.graph import Graph
from onnxq.report.reasons import by_reason, why_float
from onnxq.report.table import Table, count, in_decibels, number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from onnxq.formats.scheme import Scheme
    from onnxq.quantization.account import Account
    from onnxq.quantization.request import QuantizationResult


def lines(result: QuantizationResult, seconds: float = math.nan) -> Iterator[str]:
    """What it came to, the speed here, and where the model will not pay."""
    account = result.account
    if account is None:
        return
    yield line(result, account, seconds)
    speed = account.speed
    if speed is not None:
        yield (
            f"on one core of this machine: {number(speed.float_ms, 3)} → "
            f"{number(speed.quantized_ms, 3)} ms a run of {count(speed.samples, 'sample')} "
            f"({1 / max(speed.ratio, 1e-9):.2f} × as fast)"
        )
    yield from account.cautions


def line(result: QuantizationResult, account: Account, seconds: float) -> str:
    """Such as "46.8 → 11.8 MB (3.97 ×), 23 of 25 layers int8, …, 41.1 dB, 17 s"."""
    sizes = f"{number(account.float_size / 1e6, 3)} → {number(account.size / 1e6, 3)} MB"
    parts = [
        f"{sizes} ({account.ratio:.3g} ×)",
        layers_text(account, result.plan.scheme),
        share_text(account),
        "" if math.isnan(result.quantized_sqnr) else in_decibels(result.quantized_sqnr),
        "" if math.isnan(seconds) else f"{seconds:.0f} s",
    ]
    return ", ".join(filter(None, parts))


def layers_text(account: Account, scheme: Scheme) -> str:
    """Such as "23 of 25 layers int8"."""
    layers = count(account.layers, "layer")
    return f"{account.quantized_layers:,} of {layers} {numbers_of(scheme)}"


def share_text(account: Account) -> str:
    """The arithmetic on integers; "" where that is not known."""
    share = account.integer_share
    return "" if share is None else f"{share:.3g} % of the multiply-adds in integers"


def numbers_of(scheme: Scheme) -> str:
    """What the layers of a scheme compute with: "int8", "int8 × uint16", "uint4 weights"."""
    weights, activations = (scheme.formats[role] for role in ("weights", "activations"))
    if activations not in FORMATS:
        return f"{weights} weights"
    same = FORMATS[weights].bits == FORMATS[activations].bits
    return weights if same else f"{weights} × {activations}"


def next_step(model: Path, output: Path) -> str:
    """What a user does with the model."""
    return f"next: onnxq validate {shlex.quote(str(model))} {shlex.quote(str(output))} --data DATA"


def float_table(result: QuantizationResult) -> Table:
    """What stays in float, by its reasons."""
    return by_reason(Graph(result.prepared.model), why_float(result.plan))


def document(result: QuantizationResult, seconds: float) -> Mapping[str, Any] | None:
    """`account` in the document of `onnxq quantize --json`."""
    account = result.account
    if account is None:
        return None
    speed = account.speed
    return {
        "float_size_bytes": account.float_size,
        "size_bytes": account.size,
        "layers": account.layers,
        "quantized_layers": account.quantized_layers,
        "multiply_adds": account.multiply_adds,
        "integer_multiply_adds": account.integer_multiply_adds,
        "seconds": seconds,
        "speed": speed and {
            "samples": speed.samples, "float_ms": speed.float_ms,
            "quantized_ms": speed.quantized_ms, "ratio": speed.ratio,
        },
        "cautions": account.cautions,
    }  # fmt: skip
