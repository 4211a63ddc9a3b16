"""The options of `onnxq quantize` and `onnxq.quantize`."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict

from onnxq.errors import UsageError
from onnxq.formats.scheme import BLOCK_SIZES, DEFAULT, PRESETS
from onnxq.formats.table import INTERFACES, InterfaceName
from onnxq.options import shared
from onnxq.options.effort import DEFAULT_EFFORT, EFFORTS
from onnxq.options.fields import Options, flag, option, switch
from onnxq.options.kinds import Choice, Flag, Number, OneOf, Whole
from onnxq.options.values import Share

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

_MEANINGS = "; ".join(f"{name}, {preset.meaning}" for name, preset in PRESETS.items())

_EFFORTS = "; ".join(f"{name}, {effort.meaning}" for name, effort in EFFORTS.items())

_BLOCKS = "; ".join(
    f"{name}: {preset.block} by default" if preset.block else f"{name}: a channel by default"
    for name, preset in PRESETS.items()
    if preset.block is not None
)

MAX_TRIALS = 16
"""Models made and measured, the first one with all layers quantized included."""

MAX_MINUTES = 10.0
"""No trial starts later than this after the search began."""


SchemeName = enum.Enum(  # type: ignore[misc]
    "SchemeName", {name.upper(): name for name in PRESETS}, module=__name__
)
"""What weights and activations become: the rows of `onnxq.formats.scheme.PRESETS`."""


class WeightScales(enum.Enum):
    """How many scales a weight has."""

    PER_CHANNEL = "per-channel"
    PER_TENSOR = "per-tensor"


class RangeEstimator(enum.Enum):
    """How the range of an activation is chosen; see `onnxq.calibration.ranges`."""

    AUTO = "auto"
    MINMAX = "minmax"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"
    MSE = "mse"


class ScaleNumbers(enum.Enum):
    """Which numbers scales may be."""

    FLOAT = "float"
    POWER_OF_TWO = "power-of-two"


class WeightRounding(enum.Enum):
    """How weights are rounded."""

    NEAREST = "nearest"
    ADAPTIVE = "adaptive"
    """For the layer's output, as its inputs are."""


EffortName = enum.Enum(  # type: ignore[misc]
    "EffortName", {name.upper(): name for name in EFFORTS}, module=__name__
)
"""How much is tried: the rows of `onnxq.options.effort.EFFORTS`."""


class HeadNumbers(enum.Enum):
    """What a detector computes behind its last layers with; see `onnxq.model.heads`."""

    FLOAT = "float"
    INT8 = "int8"
    """As all else: what the target has kernels for is quantized."""


class FloatRest(enum.Enum):
    """The type of what stays in float."""

    FP32 = "fp32"
    FP16 = "fp16"


InterfaceNumbers = enum.Enum(  # type: ignore[misc]
    "InterfaceNumbers", {name.upper(): name for name in INTERFACES}, module=__name__
)
"""What inputs and outputs become: the formats of 8-bit activations."""


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions(Options):
    """How to quantize a model."""

    command: ClassVar[str] = "quantize"

    data: Any = shared.data(extra=" Calibrates, rounds, corrects biases and measures.")
    calibration: Any = shared.calibration()
    preprocess: Any = shared.preprocess()
    tokenizer: Path | None = shared.tokenizer()
    samples: int | None = shared.samples()
    states: tuple[str, ...] = shared.states()
    input_shapes: tuple[str, ...] = shared.input_shapes(fixed=True)
    mask: str | None = shared.mask()
    batch_size: int = shared.batch_size()
    memory: int = shared.memory()
    allow_nonfinite: bool = shared.allow_nonfinite()
    target: str = shared.target(
        "The machine: gpu for TensorRT and CUDA, cpu for ONNX Runtime's CPU kernels, qnn for "
        "Qualcomm's NPUs, or your own; auto: gpu where TensorRT is installed, else cpu.",
        automatic=True,
    )
    scheme: SchemeName = option(
        Choice(SchemeName), f"What nodes compute with: {_MEANINGS}.", SchemeName(DEFAULT)
    )
    weights: WeightScales = option(
        Choice(WeightScales), "Scales of the weights.", WeightScales.PER_CHANNEL
    )
    block_size: int | None = option(
        OneOf(BLOCK_SIZES),
        f"Values of a weight that share a scale, where only weights are quantized; {_BLOCKS}.",
        metavar="N",
    )
    mixed: float | None = option(
        Share(),
        "Share of the layers that hurt most, which get 16-bit activations where the target has "
        "some, else stay in float; of the weights, in 8 bits, for w4; needs --data.",
        metavar="SHARE",
    )
    table_bits: int | None = option(
        OneOf((8, 4)),
        "Bits of large tables that rows are looked up in, such as embeddings, where the target "
        "stores them as integers; 4 is read by ONNX Runtime alone.",
        metavar="N",
    )
    equalize: bool = switch("Equalize across layers first.", default=True)
    absorb_bias: bool = shared.absorb_bias(
        default=True, extra=", if equalized and zero points are 0"
    )
    ranges: RangeEstimator = option(
        Choice(RangeEstimator), "How activation ranges are chosen.", RangeEstimator.AUTO
    )
    scale: ScaleNumbers = option(
        Choice(ScaleNumbers), "Scales of activations and weights.", ScaleNumbers.FLOAT
    )
    bias_correction: bool = switch("Cancel each channel's mean error; needs --data.", default=True)
    rounding: WeightRounding = option(
        Choice(WeightRounding),
        "How weights are rounded; adaptive, for the layer's output, needs --data.",
        WeightRounding.ADAPTIVE,
    )
    effort: EffortName = option(
        Choice(EffortName),
        f"How much time accuracy may take: {_EFFORTS}.",
        EffortName(DEFAULT_EFFORT),
    )
    rest: FloatRest = option(
        Choice(FloatRest), "Type of what stays in float; fp16 needs --data.", FloatRest.FP32
    )
    head: HeadNumbers = option(
        Choice(HeadNumbers),
        "What a detector computes behind its last layers: means of bins, arithmetic on boxes, "
        "boxes joined with scores; int8: where the target has kernels.",
        HeadNumbers.FLOAT,
    )
    include: tuple[str, ...] = shared.include()
    exclude: tuple[str, ...] = shared.exclude()
    exclude_operators: tuple[str, ...] = shared.exclude_operators()
    io: InterfaceNumbers | None = option(
        Choice(InterfaceNumbers),
        "Inputs and outputs of the model in integers, as NPUs take and give them, where they are "
        "quantized to these.",
    )
    allow_none: bool = flag("Write the model even if no node becomes quantized.")
    speed: bool = option(
        Flag(negatable=True),
        "Time both models on one core, for about a second, where the target runs here.",
        default=True,
        decides=False,
    )
    outputs: tuple[str, ...] = shared.outputs()
    max_drop: float | None = option(
        Number(),
        "Raise layers to 16 bits where the target has them, else to float, until the metric falls "
        "no more than X below the float model's on --validate-data; see onnxq validate.",
        metavar="X",
    )
    validate_data: Any = shared.validate_data(
        "Samples that --max-drop measures on, preprocessed like --data."
    )
    max_trials: int = option(
        Whole(), "Models that --max-drop may make and measure.", MAX_TRIALS, metavar="N"
    )
    max_minutes: float = option(
        Number(least=0),
        "Time after which --max-drop starts no other.",
        MAX_MINUTES,
        metavar="M",
    )
    libraries: tuple[Path, ...] = shared.libraries()
    provider: shared.Provider = shared.provider()

    def check(self) -> None:
        preset = PRESETS[self.scheme.value]
        if self.block_size is not None and preset.block is None:
            able = ", ".join(name for name, each in PRESETS.items() if each.block is not None)
            raise UsageError(
                f"--block-size: scheme {self.scheme.value} has no blocks",
                hint=f"those of {able} have",
            )
        blocks = self.block_size or preset.block
        if blocks and self.weights is WeightScales.PER_TENSOR:
            raise UsageError("--weights per-tensor does not go with weights in blocks")
        if self.mixed is not None and self.data is None:
            raise UsageError(
                "--mixed needs samples, on which it finds the layers that hurt most",
                hint="give --data",
            )
        if preset.needs_ranges and self.data is None and self.calibration is None:
            raise UsageError("quantize needs data", hint="give --data or --calibration")
        shared.require_data(self, "preprocess", "samples")
        if self.validate_data is None:  # which are read so too
            shared.require_data(self, "tokenizer", "mask")
        if (self.max_drop is None) != (self.validate_data is None):
            raise UsageError("--max-drop and --validate-data need each other")
        if self.rest is FloatRest.FP16 and self.data is None:
            raise UsageError(
                "--rest fp16 needs samples, on which it looks for values beyond float16",
                hint="give --data",
            )


class QuantizeKeywords(TypedDict, total=False):
    """The options of `onnxq.quantize` for editors; a test holds them to `QuantizeOptions`."""

    tokenizer: str | os.PathLike[str] | None
    states: Sequence[str]
    input_shapes: Sequence[str]
    mask: str | None
    batch_size: int
    memory: int | str
    allow_nonfinite: bool
    samples: int | None
    target: shared.TargetName | str | os.PathLike[str]
    scheme: SchemeName | Literal["w8a8", "w8a16", "w7a8", "w8", "w4", "dynamic", "fp8"]
    weights: WeightScales | Literal["per-channel", "per-tensor"]
    block_size: Literal[32, 64, 128] | None
    mixed: float | str | None
    table_bits: Literal[8, 4] | None
    equalize: bool
    absorb_bias: bool
    ranges: RangeEstimator | Literal["auto", "minmax", "percentile", "entropy", "mse"]
    scale: ScaleNumbers | Literal["float", "power-of-two"]
    bias_correction: bool
    rounding: WeightRounding | Literal["nearest", "adaptive"]
    effort: EffortName | Literal["fast", "default", "best"]
    rest: FloatRest | Literal["fp32", "fp16"]
    head: HeadNumbers | Literal["float", "int8"]
    include: Sequence[str]
    exclude: Sequence[str]
    exclude_operators: Sequence[str]
    io: InterfaceNumbers | InterfaceName | None
    allow_none: bool
    speed: bool
    outputs: Sequence[str]
    max_drop: float | None
    max_trials: int
    max_minutes: float
    libraries: Sequence[str | os.PathLike[str]]
    provider: shared.Provider | shared.ProviderName
