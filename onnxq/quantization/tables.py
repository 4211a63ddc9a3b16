"""Tables whose rows are looked up, as embeddings are: stored in the format of the weights.

A table that is a quantized weight too, as the embedding of a language model is its last layer, is
read from the weight's integers: both are one array in the float model, and with the table left in
float the quantized one would hold the numbers twice. Any other large table gets scales of each row.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.errors import UsageError
from onnxq.formats.fit import fit_blocks, fit_magnitude
from onnxq.formats.granularity import Blocks, PerChannel
from onnxq.formats.parameters import Parameters, dequantize, quantize
from onnxq.formats.scheme import Representable, Scheme, Spec
from onnxq.model.graph import Graph, Node, Place
from onnxq.model.operators import operator_of
from onnxq.refusal import Refusal
from onnxq.targets import Target

ROWS = 4096
"""Rows of a table that are compared at once."""

LOWEST_SQNR = 20.0
"""dB that each column must keep in integers, else the table stays a float array."""

LOWEST_NARROW = 10.0
"""The same of numbers narrower than a byte, which somebody asked for."""

LARGE = 1 << 17
"""Elements from which a table is worth the kernels that multiply what is looked up, 0.5 MB."""

LARGE_OF_WEIGHTS = 1 << 16
"""The same where only weights are quantized, for their size."""

USUAL_BLOCK = 128
"""Columns that share a scale where nothing else is asked for: 3 % more bytes, 2 dB less noise of a
table than with a scale a row (MiniLM)."""

SMALL_BLOCK = 32
"""The same of a small table, of which more bytes are few."""

SMALL = 1 << 20
"""Elements up to which a table is small."""


@dataclass(frozen=True, eq=False)
class TiedTable:
    """A lookup of rows whose table holds what a quantized weight holds.

    Attributes:
        node: looks up.
        place: where the weight is read.
        transposed: the weight has the rows of the table as its columns.
        factors: (columns,) table over weight, where equalization scaled the weight; None for ones.
    """

    node: str
    place: Place
    transposed: bool
    factors: NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class RowTable:
    """A lookup whose table is stored in a format of weights, with scales of each row.

    That is one, or one for each block of its columns.
    """

    node: str
    parameters: Parameters

    @property
    def block(self) -> int:
        """Columns that share a scale; 0 where all do."""
        granularity = self.parameters.granularity
        return granularity.size if isinstance(granularity, Blocks) else 0

    @property
    def why_float(self) -> Refusal:
        """Why what it gives is float."""
        scales = f"in blocks of {self.block}" if self.block else "by row"
        return Refusal(f"its table is stored in {self.parameters.format}, {scales}")


@dataclass(frozen=True)
class TableForm:
    """What a table may be stored in.

    Attributes:
        spec: of its numbers.
        block: columns that share a scale; 0 where a row does.
        most: elements of the largest table that it is for.
    """

    spec: Spec
    block: int = 0
    most: float = math.inf

    @property
    def opset(self) -> int:
        """The first operator set that holds it."""
        return self.spec.format.opset

    def suits(self, table: NDArray[Any]) -> bool:
        """Whether it is for a table (rows, columns)."""
        if not self.block:
            return self.spec.symmetric
        columns = table.shape[1]
        return table.size <= self.most and columns > self.block and columns % self.block == 0


def forms_of_tables(target: Target, scheme: Scheme, bits: int) -> tuple[TableForm, ...]:
    """What the target stores tables in, what is wanted most first.

    Args:
        bits: of the numbers; 0 for those of the scheme, or of its wider one.

    Raises:
        UsageError: the target does not store tables so.
    """
    every = [row.scheme for row in target.schemes.values()] if target.row_tables else []
    narrow = [each for each in every if each.weight is not None and each.weight.format.bits == bits]
    if bits and not narrow:
        raise UsageError(
            f"target {target.name} stores no tables in {bits} bits",
            hint="leave --table-bits out, or give a target that does, such as cpu",
        )
    usual = scheme.wider or scheme
    found = [*narrow[:1], usual]
    forms = [form for each in found for form in _forms(each)]
    return tuple(forms) if target.row_tables else ()


def _forms(scheme: Scheme) -> list[TableForm]:
    """From the one that is wanted most to the one that suits any table.

    Who quantizes weights alone wants a small file, and says how large blocks may be.
    """
    spec = scheme.weight
    if spec is None:
        return []
    if scheme.block:
        return [TableForm(spec, scheme.block), TableForm(spec)]
    if scheme.activation is None:
        return [TableForm(spec)]
    small = TableForm(spec, SMALL_BLOCK, SMALL)
    return [small, TableForm(spec, USUAL_BLOCK), TableForm(spec)]


def row_tables(
    graph: Graph,
    forms: Sequence[TableForm],
    scales: Representable,
    float_nodes: Collection[str],
    smallest: int = LARGE,
    others: Collection[Place] = (),
) -> tuple[RowTable, ...]:
    """The lookups of large tables that nothing else reads.

    Args:
        forms: what tables may be stored in; the first that holds a table is taken.
        scales: numbers that a scale may be.
        float_nodes: nodes that are to be left alone.
        smallest: elements of a table that is large.
        others: places that may read it too: they will read something else.
    """
    lookups: dict[str, list[str]] = {}
    for node in graph.nodes:
        name = node.input(0)
        if node.name in float_nodes or not _looks_up(graph, node):
            continue
        if graph.value(name).size >= smallest and graph.rank(node.input(1)) is not None:
            lookups.setdefault(name, []).append(node.name)
    tables = []
    for name, nodes in lookups.items():
        if not _is_free(graph, name, {Place(node, 0) for node in nodes} | set(others)):
            continue
        table = graph.value(name)
        fits = (_fit(table, form, scales) for form in forms if form.suits(table))
        parameters = next((each for each in fits if each is not None), None)
        if parameters is not None:
            tables += [RowTable(node, parameters) for node in nodes]
    return tuple(tables)


def _fit(table: NDArray[Any], form: TableForm, scales: Representable) -> Parameters | None:
    """Scales of each row; None where the integers would not hold the rows well enough."""
    largest = np.abs(table).max(axis=1, initial=0.0).astype(np.float64)
    if not np.isfinite(largest).all():
        return None
    if form.block:
        # Of few bits a float32 scale is a large part, and what is looked up is cast anyway.
        scales = replace(scales, half=scales.half or form.spec.format.narrow)
        parameters = fit_blocks(table, form.spec, Blocks(1, form.block), scales)
    else:
        parameters = fit_magnitude(largest, form.spec, PerChannel(0), scales)
    # A step's error is even, so its power is known without rounding each element.
    error = np.square(parameters.scale.astype(np.float64)).sum(axis=0) / 12
    error = np.repeat(error, form.block) if form.block else error
    power = np.einsum("ij,ij->j", table, table, dtype=np.float64)
    lowest = LOWEST_NARROW if form.spec.format.narrow else LOWEST_SQNR
    kept = power >= error * 10 ** (lowest / 10)
    return parameters if np.all(kept | (power == 0)) else None


def tied_tables(graph: Graph, weights: Mapping[Place, Parameters]) -> tuple[TiedTable, ...]:
    """The lookups that may read a weight in place of their table."""
    tables = [
        table for node in graph.nodes
        if _looks_up(graph, node) and (table := _tied(graph, node, weights)) is not None
    ]  # fmt: skip
    reading = {Place(table.node, 0) for table in tables} | set(weights)
    return tuple(
        table for table in tables if _is_free(graph, graph.by_name[table.node].input(0), reading)
    )


def _is_free(graph: Graph, name: str, reading: Collection[Place]) -> bool:
    """Whether nothing else reads the table: a float reader would keep it in the file for all."""
    uses = (Place(use.node.name, use.position) for use in graph.consumers(name))
    return not graph.is_exposed(name) and all(use in reading for use in uses)


def _looks_up(graph: Graph, node: Node) -> bool:
    """Whether the node takes rows of a constant float matrix."""
    row, name = operator_of(node), node.input(0)
    if row is None or not row.looks_up or not graph.is_constant(name) or not graph.is_float(name):
        return False
    return graph.rank(name) == 2 and node.attributes.get("axis", 0) in {0, -2}


def _tied(graph: Graph, node: Node, weights: Mapping[Place, Parameters]) -> TiedTable | None:
    """The node's table as one of the weights; None where it is none of them."""
    table = graph.value(node.input(0))
    for place, parameters in weights.items():
        name = graph.by_name[place.node].inputs[place.position]
        weight = graph.constant(name)
        if weight is None or weight.ndim != 2 or weight.size != table.size:
            continue
        for transposed in (False, True):
            rows = weight.T if transposed else weight
            if rows.shape != table.shape or parameters.axis not in {None, int(transposed)}:
                continue
            if isinstance(parameters.granularity, Blocks) or graph.rank(node.input(1)) is None:
                continue
            factors = _factors(table, rows)
            if factors is not None and _keeps(table, weight, parameters, transposed, factors):
                ones = bool((factors == 1).all())
                return TiedTable(node.name, place, transposed, None if ones else factors)
    return None


def _factors(table: NDArray[Any], rows: NDArray[Any]) -> NDArray[np.float32] | None:
    """What each column of `rows` is to be multiplied by to be the table's; None if that is not it.

    Exact where equalization scaled by powers of two.
    """
    first, other = np.asarray(table[:ROWS]), np.asarray(rows[:ROWS])
    largest = np.abs(other).argmax(axis=0), np.arange(other.shape[1])
    divisor = np.where(other[largest] == 0, np.float32(1), other[largest])
    factors = np.where(other[largest] == 0, np.float32(1), first[largest] / divisor)
    same = (
        np.array_equal(table[at : at + ROWS], rows[at : at + ROWS] * factors)
        for at in range(0, len(table), ROWS)
    )
    return factors.astype(np.float32) if all(same) else None


def _keeps(
    table: NDArray[Any],
    weight: NDArray[Any],
    parameters: Parameters,
    transposed: bool,
    factors: NDArray[np.float32],
) -> bool:
    """Whether the integers hold the table well enough: scales for outputs may not suit it."""
    restored = dequantize(quantize(np.asarray(weight), parameters), parameters)
    rows = (restored.T if transposed else restored) * factors
    error = np.square(rows - table, dtype=np.float64).sum(axis=0)
    power = np.square(table, dtype=np.float64).sum(axis=0)
    return bool((power >= error * 10 ** (LOWEST_SQNR / 10)).all())
