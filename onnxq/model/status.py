"""What becomes of a node: it computes in a scheme, inside another node's kernel, or in float."""

from __future__ import annotations

from dataclasses import dataclass

from onnxq.formats.scheme import Scheme
from onnxq.refusal import Refusal


@dataclass(frozen=True)
class Quantized:
    """Computes on quantized values; `fused_into` names the node whose kernel it becomes part of."""

    scheme: Scheme
    fused_into: str | None = None


@dataclass(frozen=True)
class Float:
    """Stays in float, for a reason."""

    refusal: Refusal

    @property
    def reason(self) -> str:
        return self.refusal.reason
