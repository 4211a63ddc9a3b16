"""The options of `onnxq equalize` and `onnxq.equalize`."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict

from onnxq.errors import UsageError
from onnxq.formats.scheme import DEFAULT
from onnxq.options import shared
from onnxq.options.fields import Options, option
from onnxq.options.kinds import Choice
from onnxq.options.quantize import SchemeName, WeightScales

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence


class ChannelScales(enum.Enum):
    """Which numbers the scales of channels may be."""

    POWER_OF_TWO = "power-of-two"
    REAL = "real"


class Relu6(enum.Enum):
    """How a scale passes a saturating Clip; see `onnxq.equalization.clips`."""

    AUTO = "auto"
    TIE = "tie"
    PER_CHANNEL = "per-channel"
    RELU = "relu"
    SKIP = "skip"


@dataclass(frozen=True, kw_only=True)
class EqualizeOptions(Options):
    """How to scale weights across layers."""

    command: ClassVar[str] = "equalize"

    calibration: Any = shared.calibration()
    data: Any = shared.data(extra=" Calibrates, and proves on these samples.")
    preprocess: Any = shared.preprocess()
    tokenizer: Path | None = shared.tokenizer()
    states: tuple[str, ...] = shared.states()
    input_shapes: tuple[str, ...] = shared.input_shapes()
    mask: str | None = shared.mask()
    batch_size: int = shared.batch_size()
    memory: int = shared.memory()
    allow_nonfinite: bool = shared.allow_nonfinite()
    target: str = shared.target("The machine that the quantized model will be for.")
    scheme: SchemeName = option(
        Choice(SchemeName), "What nodes will compute with there.", SchemeName(DEFAULT)
    )
    weights: WeightScales = option(
        Choice(WeightScales), "Scales that the weights will have.", WeightScales.PER_CHANNEL
    )
    scales: ChannelScales = option(
        Choice(ChannelScales),
        "Powers of two keep the float output bit-identical.",
        ChannelScales.POWER_OF_TWO,
    )
    relu6: Relu6 = option(
        Choice(Relu6), "How a scale passes a saturating Clip such as ReLU6.", Relu6.AUTO
    )
    absorb_bias: bool = shared.absorb_bias(default=False, extra="; exact up to float rounding")
    libraries: tuple[Path, ...] = shared.libraries()
    provider: shared.Provider = shared.provider()

    def check(self) -> None:
        shared.require_data(self, "preprocess", "tokenizer", "mask")
        if self.absorb_bias and self.data is None and self.calibration is None:
            raise UsageError(
                "--absorb-bias needs to know the activations", hint="give --calibration or --data"
            )


class EqualizeKeywords(TypedDict, total=False):
    """The options of `onnxq.equalize` for editors; a test holds them to `EqualizeOptions`."""

    tokenizer: str | os.PathLike[str] | None
    states: Sequence[str]
    input_shapes: Sequence[str]
    mask: str | None
    batch_size: int
    memory: int | str
    allow_nonfinite: bool
    target: shared.TargetName | str | os.PathLike[str]
    scheme: SchemeName | Literal["w8a8", "w8a16", "w7a8", "w8", "w4", "dynamic", "fp8"]
    weights: WeightScales | Literal["per-channel", "per-tensor"]
    scales: ChannelScales | Literal["power-of-two", "real"]
    relu6: Relu6 | Literal["auto", "tie", "per-channel", "relu", "skip"]
    absorb_bias: bool
    libraries: Sequence[str | os.PathLike[str]]
    provider: shared.Provider | shared.ProviderName
