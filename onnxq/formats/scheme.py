"""Schemes: what a node computes with. Presets are rows by the names that users know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from onnxq.formats.table import BLOCKS_OPSET, BYTE, FORMATS, Floating, Format, Uniform
from onnxq.records import Named


@dataclass(frozen=True)
class Spec:
    """What values of one role, weights or activations, become.

    Attributes:
        format: the number format.
        symmetric: whether the zero point is the middle of the grid whatever the values are.
        numbers: those in use. Of symmetric weights the lowest is −highest, so that w and −w cost
            the same; of activations it is the format's own, to which QuantizeLinear saturates.
        power_of_two: whether scales are powers of two whatever else is allowed.
    """

    format: Format
    symmetric: bool
    numbers: Uniform | Floating
    power_of_two: bool = False

    @property
    def floating(self) -> bool:
        """Whether the steps grow with the values, so that no channel is too small for a scale."""
        return isinstance(self.numbers, Floating)

    def scales(self, allowed: Representable) -> Representable:
        """Of the scales that are allowed those that this role takes."""
        return replace(allowed, power_of_two=True) if self.power_of_two else allowed

    @property
    def middle(self) -> int:
        """The zero point of symmetric values."""
        return 0 if self.format.signed else (int(self.numbers.highest) + 1) // 2

    @property
    def steps(self) -> int:
        """What the scale divides a range by, steps: its larger half, of symmetric values."""
        lowest = self.middle if self.symmetric else self.numbers.lowest
        return int(self.numbers.highest - lowest)

    @property
    def levels(self) -> int:
        """Numbers that values within the range become."""
        if self.floating:
            return 1 << self.format.bits
        return 2 * self.steps + 1 if self.symmetric else self.steps + 1

    @property
    def clipping_pays(self) -> bool:
        """Whether values may be worth cutting off for smaller steps.

        Steps of more than a byte are small enough, and those of floating numbers do not depend on
        the largest value.
        """
        return not self.floating and self.format.bits <= BYTE

    @property
    def half(self) -> int:
        """Steps from 0 to the largest magnitude of values that lie alike on both sides."""
        return (self.levels - 1) // 2

    def __str__(self) -> str:
        return f"{self.format}, {'symmetric' if self.symmetric else 'asymmetric'}"


def weights_in(format_: Format, bits: int = 0, *, symmetric: bool = True) -> Spec:
    """Weights; symmetric ones in the numbers of `bits`, by default all of the format's, but the
    lowest.
    """
    if not symmetric or not format_.signed or isinstance(format_.grid, Floating):
        return activations_in(format_, symmetric=symmetric)
    highest = (1 << (bits or format_.bits) - 1) - 1
    return Spec(format_, symmetric=True, numbers=Uniform(-highest, highest))


def activations_in(format_: Format, *, symmetric: bool) -> Spec:
    """Activations in all numbers of a format."""
    return Spec(format_, symmetric=symmetric, numbers=format_.grid)


@dataclass(frozen=True)
class Dynamic:
    """Activations quantized as the model runs: each by the range that it has in that run."""

    spec: Spec

    @property
    def format(self) -> Format:
        return self.spec.format

    def __str__(self) -> str:
        return f"{self.format}, by the range of each run"


@dataclass(frozen=True)
class Preset:
    """What a name of a scheme promises, whatever the target makes of it.

    Attributes:
        weight_bits, activation_bits: widths of their formats; 0 for what stays in float.
        meaning: for people.
        block: values that share a scale where nothing else is asked for; 0 for scales by channel,
            None where weights are never in blocks.
        dynamic: whether activations are quantized as the model runs.
        used_bits: of the weights' format, where not all.
        floating: whether the formats are floating ones.
    """

    weight_bits: int
    activation_bits: int
    meaning: str
    block: int | None = None
    dynamic: bool = False
    used_bits: int = 0
    floating: bool = False

    @property
    def needs_ranges(self) -> bool:
        """Whether the ranges of activations must be known in advance."""
        return bool(self.activation_bits) and not self.dynamic


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "w8a8": Preset(8, 8, "8-bit weights and activations"),
        "w8a16": Preset(8, 16, "8-bit weights, 16-bit activations"),
        "w7a8": Preset(8, 8, "7-bit weights, 8-bit activations: for x86 without VNNI", used_bits=7),
        "w8": Preset(8, 0, "8-bit weights, float activations", block=0),
        "w4": Preset(4, 0, "4-bit weights in blocks, float activations", block=32),
        "dynamic": Preset(
            8, 8, "8-bit weights, activations quantized as the model runs", dynamic=True
        ),
        "fp8": Preset(8, 8, "8-bit floating-point weights and activations", floating=True),
    }
)

DEFAULT = "w8a8"

BLOCK_SIZES = (32, 64, 128)
"""Values that may share a scale: those that kernels of ONNX Runtime know and that pay."""


@dataclass(frozen=True)
class Scheme(Named):
    """What the nodes of one preset compute with on one target.

    Attributes:
        name: of the preset.
        weight, activation: None for what stays in float.
        bias: format of biases, in steps of input scale × weight scale; None for float ones.
        block: values of a weight along its inputs that share a scale; 0 for scales by channel.
        wider: what layers compute with whose weights have no blocks, and those that are spared:
            wider weights, or wider activations; None where there is no such scheme.
    """

    name: str
    weight: Spec | None
    activation: Spec | Dynamic | None
    bias: Format | None
    block: int = 0
    wider: Scheme | None = None

    @property
    def static(self) -> Spec | None:
        """What activations become by ranges that are known in advance; None for other ones."""
        return self.activation if isinstance(self.activation, Spec) else None

    @property
    def rounded(self) -> Spec | None:
        """The numbers that activations become, by whatever ranges; None where they stay float."""
        return self.activation.spec if isinstance(self.activation, Dynamic) else self.activation

    @property
    def floating(self) -> bool:
        """Whether weights and activations become floating-point numbers."""
        return self.weight is not None and self.weight.floating

    @property
    def is_dynamic(self) -> bool:
        """Whether activations are quantized as the model runs."""
        return isinstance(self.activation, Dynamic)

    @property
    def opset(self) -> int:
        """The first operator set that holds all of it."""
        used = [spec.format for spec in (self.weight, self.activation) if spec is not None]
        lowest = BLOCKS_OPSET if self.block else 0
        return max(lowest, *(row.opset for row in (*used, FORMATS["int8"])))

    @property
    def formats(self) -> dict[str, str]:
        """Role → the format it is stored in."""
        roles = {
            "weights": None if self.weight is None else self.weight.format,
            "activations": None if self.activation is None else self.activation.format,
            "biases": self.bias,
        }
        return {role: "float" if each is None else each.name for role, each in roles.items()}

    def __str__(self) -> str:
        return self.name


REFERENCE = Scheme(
    DEFAULT,
    weights_in(FORMATS["int8"]),
    activations_in(FORMATS["int8"], symmetric=True),
    bias=None,
)
"""What a stage assumes that is not told a target."""


@dataclass(frozen=True)
class Representable:
    """Which scales are allowed: all float32 numbers, powers of two, or float16 numbers."""

    power_of_two: bool = False
    half: bool = False
