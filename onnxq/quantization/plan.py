"""The plan as a value: what each node and tensor becomes, and why the rest stays in float.

`onnxq.quantization.planning` makes one, `onnxq.quantization.insert` applies it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnxq.calibration.ranges import AUTO
from onnxq.formats.parameters import Parameters
from onnxq.formats.scheme import DEFAULT, Dynamic, Representable, Scheme
from onnxq.formats.table import Format
from onnxq.model.graph import Place
from onnxq.model.status import Float, Quantized
from onnxq.quantization.tables import RowTable, TiedTable
from onnxq.targets import Target


@dataclass(frozen=True)
class QuantizationOptions:
    """What the caller decides.

    Attributes:
        scheme: name of the scheme, one that the target takes.
        per_channel: weights have a scale for each output channel, else one.
        ranges: range estimator of the activations.
        power_of_two: all scales are powers of two.
        half: all scales are float16 numbers, as the float remainder will be.
        block: values of a weight that share a scale; 0 for as many as the scheme says.
        table_bits: of the tables that are looked up, where the target stores them narrower.
        include, exclude: regular expressions on node names; a node is quantized if it matches
            some `include` (or there is none) and no `exclude`.
        exclude_operators: operators that stay in float.
        float_head: what a detector computes behind its last layers stays in float.
    """

    scheme: str = DEFAULT
    per_channel: bool = True
    ranges: str = AUTO
    power_of_two: bool = False
    half: bool = False
    block: int = 0
    table_bits: int = 0
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    exclude_operators: tuple[str, ...] = ()
    float_head: bool = True

    def scheme_on(self, target: Target) -> Scheme:
        """What nodes compute with; raises `UsageError` where the target does not take it."""
        return target.scheme(self.scheme, self.block)

    @property
    def scales(self) -> Representable:
        """The scales that are allowed."""
        return Representable(self.power_of_two, self.half)


@dataclass(frozen=True)
class Own:
    """A tensor quantized with a range of its own."""

    parameters: Parameters

    @property
    def format(self) -> Format:
        return self.parameters.format


@dataclass(frozen=True)
class Shared:
    """A tensor that shares the scale and zero point of another."""

    parameters: Parameters
    shares_with: str

    @property
    def format(self) -> Format:
        return self.parameters.format


@dataclass(frozen=True)
class Converted:
    """What some read a quantized tensor as: numbers of another format than it is written in."""

    parameters: Parameters
    readers: frozenset[Place]

    @property
    def format(self) -> Format:
        return self.parameters.format


@dataclass(frozen=True)
class Derived:
    """A bias, whose steps are those of the sum: scale of the input × scale of the weight."""

    parameters: Parameters
    data: str
    weight: Place


@dataclass(frozen=True)
class QuantizationPlan:
    """Everything `insert` needs.

    Attributes:
        scheme: what quantized nodes compute with.
        activations: tensor → how it is quantized; tensors that stay in float are absent.
        weights: where a node reads its weight → parameters of that weight.
        biases: where a node reads its bias, or could → how that is stored; float ones are absent.
        nodes: every node → quantized or float with the reason.
        readers: the places that read the dequantized tensor.
        tables: lookups that read the integers of a weight in place of a float table.
        rows: those whose table is stored with one scale a row.
        stored: where nodes that compute in float read a weight that is stored in numbers.
        converted: tensor → how some of its readers read it, where they compute in another format.
    """

    target: Target
    options: QuantizationOptions
    scheme: Scheme
    activations: Mapping[str, Own | Shared | Dynamic]
    weights: Mapping[Place, Parameters]
    biases: Mapping[Place, Derived]
    nodes: Mapping[str, Quantized | Float]
    readers: frozenset[Place]
    tables: tuple[TiedTable, ...] = ()
    rows: tuple[RowTable, ...] = ()
    stored: Mapping[Place, Parameters] = field(default_factory=dict)
    converted: Mapping[str, Converted] = field(default_factory=dict)

    @property
    def weighted(self) -> frozenset[str]:
        """The nodes with a quantized weight."""
        return frozenset(place.node for place in self.weights)

    @property
    def sharing(self) -> Mapping[str, list[str]]:
        """Of the activations with a scale of their own: which have it, themselves among them."""
        groups: dict[str, list[str]] = {}
        for name, entry in self.static.items():
            leader = entry.shares_with if isinstance(entry, Shared) else name
            groups.setdefault(leader, []).append(name)
        return groups

    @property
    def static(self) -> Mapping[str, Own | Shared]:
        """The activations whose scales are known before the model runs."""
        found = self.activations.items()
        return {name: entry for name, entry in found if not isinstance(entry, Dynamic)}
