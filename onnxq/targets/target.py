"""A target as a value: what a machine computes on quantized numbers, and where it wants Q/DQ."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from onnxq.errors import UsageError
from onnxq.formats.scheme import Scheme
from onnxq.refusal import Refusal
from onnxq.targets.sizes import Sizes


class Placement(enum.Enum):
    """Where QuantizeLinear/DequantizeLinear pairs go."""

    INPUTS = "inputs"
    """On the inputs of weighted operators, residual branches and pass-throughs before them, unless
    these only rearrange what is float; a float reader of the same tensor keeps reading the float
    value."""
    ALL = "all"
    """On the inputs and outputs of everything that has an integer kernel, so that each group
    between two pairs becomes one kernel; every reader reads the dequantized value."""


class Shapes(enum.Enum):
    """Which sizes of its inputs a runtime wants to know in advance."""

    ANY = "any"
    """None."""
    BATCH = "batch"
    """The number of samples; with an open one it computes in float, or inexactly."""
    STATIC = "static"
    """All of them; with an open one nothing runs on the device."""


@dataclass(frozen=True)
class TargetScheme:
    """One scheme that the target takes, and the operators that take it there.

    Attributes:
        operators: None for all that the target computes on quantized values.
    """

    scheme: Scheme
    operators: frozenset[str] | None = None


@dataclass(frozen=True)
class Target:
    """One machine.

    Attributes:
        name: as given to `--target`, or of its file.
        runs_on: for people.
        schemes: name → what it means here.
        placement: see `Placement`.
        weighted: operators with a weight that have a quantized kernel.
        own: operators with a quantized kernel besides the weighted ones, used where some input is
            quantized already.
        products: operators that multiply two activations on quantized values, as attention does.
        residual: operators whose second branch gets Q/DQ under `Placement.INPUTS`.
        float_output: weighted operators whose kernel can write float: for a graph output, or where
            no other quantized kernel reads it.
        one_weight_scale: weighted operators that take one scale for the whole weight only.
        channel_bounds: whether a Clip whose bounds differ by channel leaves its kernel whole: where
            it does not, a Min or Max behind an operator is a kernel of its own, and breaks fusions.
        largest_pooling_ratio: input scale over output scale that pooling kernels still run with.
        float_ends: whether, under `Placement.ALL`, an operator without a weight is left in float
            where only the caller or float operators read its result.
        own_parts: whether an operator that takes parts of a tensor is left in float where their
            ranges differ, so that each has a scale of its own.
        fixed_steps: whether kernels of more than 8 bits give a function with fixed bounds the
            step (high − low) / 2^bits, whatever the model says.
        row_tables: whether the large table of a lookup is stored with one scale a row, which the
            rows that are taken are multiplied by in float.
        sums_apart: whether an Add in front of a LayerNormalization is written as a Sum, which the
            runtime does not fuse with it; see `onnxq.quantization.residuals`.
        channels_last: weighted operators whose kernels write channels along the last axis; the
            runtime runs what follows so, too, see `onnxq.quantization.channels_last`.
        lint: ids of the rules that a model must keep here; see `onnxq.validation.lint`.
        runtime: the execution of `onnxq validate` that runs a model as this machine does; "" where
            there is none.
        shapes: which sizes of inputs must be known.
        sizes: from which layers are quantized.
        unified: operators of `own` whose operands and result have one scale.
    """

    name: str
    runs_on: str
    schemes: Mapping[str, TargetScheme]
    placement: Placement
    weighted: frozenset[str]
    own: frozenset[str]
    products: frozenset[str]
    residual: frozenset[str]
    float_output: frozenset[str]
    one_weight_scale: frozenset[str]
    channel_bounds: bool
    largest_pooling_ratio: float
    float_ends: bool
    own_parts: bool
    fixed_steps: bool
    row_tables: bool
    lint: tuple[str, ...]
    sums_apart: bool = False
    channels_last: frozenset[str] = frozenset()
    runtime: str = ""
    shapes: Shapes = Shapes.ANY
    sizes: Sizes = field(default_factory=Sizes)
    unified: frozenset[str] = frozenset()

    def scheme(self, name: str, block: int = 0) -> Scheme:
        """What a scheme means here.

        Args:
            block: values of a weight that share a scale; 0 for as many as the scheme says.

        Raises:
            UsageError: the target does not take it; the hint lists those that it takes.
        """
        if name not in self.schemes:
            raise UsageError(
                f"target {self.name} does not take scheme {name}",
                hint=f"it takes {', '.join(self.schemes)}",
            )
        scheme = self.schemes[name].scheme
        return replace(scheme, block=block) if block else scheme

    def refusal(self, name: str, op_type: str) -> Refusal | None:
        """Why an operator does not take a scheme here; None where it does."""
        operators = self.schemes[name].operators
        if operators is None or op_type in operators:
            return None
        return Refusal(f"target {self.name} leaves {op_type} in float in {name}")
