"""Bring a model to the one form that every later stage reads.

Afterwards each node has a name of its own and leads to an output, functions are written out, the
operator set is recent enough for per-channel Q/DQ,
values known before run time are initializers, so are the shapes of Reshapes, zero pads are part of
the convolution behind them, constants added to what a matrix product or convolution computes are
its bias, and batch norms are folded into the weighted operator before them: W' = W·γ/√(σ²+ε),
b' = (b − μ)·γ/√(σ²+ε) + β.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

from onnxq.errors import ModelError
from onnxq.model import elements, external
from onnxq.model.biases import join_biases
from onnxq.model.files import infer_shapes
from onnxq.model.graph import Graph, Node, names_in_subgraphs
from onnxq.model.model import Model
from onnxq.model.modernize import LOWEST_OPSET, free_weights, inline_functions, raise_opset
from onnxq.model.operators import (
    DEQUANTIZE,
    QUANTIZE,
    ScaleRule,
    is_weighted,
    operator_of,
    weight_layout,
)
from onnxq.model.rewrite import constant, edit
from onnxq.model.session import open_session, run
from onnxq.model.shapes import fix_reshapes
from onnxq.model.widen import widen
from onnxq.refusal import Refusal

if TYPE_CHECKING:
    from onnxq.model.weights import WeightLayout

Array = NDArray[Any]

FOLD_LIMIT = 1 << 24
"""Elements of a computed constant above which it stays computed at run time."""

_NEVER_FOLDED = frozenset(
    {QUANTIZE, DEQUANTIZE, "RandomNormal", "RandomUniform", "Bernoulli",
     "RandomNormalLike", "RandomUniformLike", "Multinomial", "If", "Loop", "Scan"}
)  # fmt: skip


_COMPUTED = elements.NUMPY | {TensorProto.UNDEFINED}
"""Types, known or not, of values that ONNX Runtime may compute here."""

_RUNTIME_TYPES = frozenset(
    f"tensor({TensorProto.DataType.Name(each).lower()})" for each in elements.NUMPY
)
"""The known ones by ONNX Runtime's names. Others it hands over as uint8, or not at all."""


@dataclass(frozen=True)
class Normalization:
    """What `normalize` did.

    Attributes:
        folded_batch_norms: batch norm node → weighted node that absorbed it.
        folded_pads: Pad node → convolution that now pads by itself.
        joined_biases: Add node → weighted node whose bias its constant is now.
        folded_constants: nodes replaced by their value.
        raised_from: the file's operator set, where it was raised; else 0.
        renamed: number of nodes that had no name or shared one.
        widened: number of tensors that were float16 or bfloat16 and are float32 now.
        freed: number of weights that the model's old IR version listed as inputs.
        inlined: number of model-local functions that were written out.
        unused: number of nodes that no output depends on, removed.
    """

    folded_batch_norms: dict[str, str]
    folded_pads: dict[str, str]
    joined_biases: dict[str, str]
    folded_constants: int
    raised_from: int
    renamed: int
    widened: int = 0
    freed: int = 0
    inlined: int = 0
    unused: int = 0


def normalize(model: Model, *, opset: int = 0) -> tuple[Model, Normalization]:
    """Normalize a float model; its outputs stay equal up to rounding.

    Args:
        opset: raise the operator set to this version, if lower; always to `LOWEST_OPSET`.

    Raises:
        ModelError: the operator set is too old and cannot be converted.
    """
    model, freed = free_weights(model)
    model, inlined = inline_functions(model)
    model, raised_from = raise_opset(model, max(opset, LOWEST_OPSET))
    model, widened = widen(model)
    model, renamed = _name_nodes(model)
    model, unused = _drop_unused(model)
    model, folded_constants = _fold_constants(model)
    model = fix_reshapes(model)
    model, joined = join_biases(model)
    model = _fold_factors(model)
    model, folded = _fold_batch_norms(model)
    model, pads = _fold_pads(model)
    return infer_shapes(model), Normalization(
        folded, pads, joined, folded_constants, raised_from, renamed, widened, freed, inlined,
        unused,
    )  # fmt: skip


def _name_nodes(model: Model) -> tuple[Model, int]:
    """Give every node a name that no other has; names that are unique stay."""
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    taken: set[str] = set()
    pending = []
    for node in proto.graph.node:
        if node.name and node.name not in taken:
            taken.add(node.name)
        else:
            pending.append(node)
    for node in pending:
        stem = next((output for output in node.output if output), "") or node.op_type
        name, number = f"{node.op_type}_{stem}", 1
        while name in taken:
            number += 1
            name = f"{node.op_type}_{stem}_{number}"
        node.name = name
        taken.add(name)
    return (Model(proto, model.source), len(pending)) if pending else (model, 0)


def _drop_unused(model: Model) -> tuple[Model, int]:
    """Without the nodes that no output depends on."""
    graph = Graph(model)
    if all(any(map(graph.is_read, node.outputs)) for node in graph.nodes):
        return model, 0
    smaller = edit(model, lambda _: None)  # every edit drops them
    return smaller, len(graph.nodes) - len(smaller.proto.graph.node)


# --- constants -------------------------------------------------------------------------------


def _fold_constants(model: Model) -> tuple[Model, int]:
    """Replace nodes whose values are known before run time by initializers."""
    graph = Graph(model)
    known: set[str] = set()
    foldable: list[Node] = []
    given: dict[str, Array] = {}
    for node in graph.nodes:
        static = _static_shape(graph, node)
        if static is None:
            static = _stored_value(node)
        if static is not None:
            given[node.output] = static
            known.add(node.output)
            foldable.append(node)
        elif _is_foldable(graph, node, known):
            known.update(node.outputs)
            foldable.append(node)
    if not foldable:
        return model, 0
    folded = {node.index for node in foldable}
    needed = [
        name
        for name in known
        if graph.is_exposed(name)
        or any(use.node.index not in folded for use in graph.consumers(name))
    ]
    values = _evaluate(model, [n for n in foldable if n.output not in given], given, needed)
    if values is None:
        return model, 0
    return _with_values(model, folded, values), len(foldable)


def _static_shape(graph: Graph, node: Node) -> Array | None:
    """The value of a Shape node whose input has known sizes only."""
    row = operator_of(node)
    if row is None or row.scale is not ScaleRule.OBSERVE or row.op_type != "Shape":
        return None
    shape = graph.shape(node.input(0))
    if shape is None or not all(isinstance(size, int) for size in shape):
        return None
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return np.array(shape[start:end], np.int64)


def _stored_value(node: Node) -> Array | None:
    """The value of a Constant node that holds a tensor.

    Taken as it is: ONNX Runtime hands over few of the types that a tensor may have.
    """
    tensor = node.attributes.get("value")
    if node.op_type != "Constant" or node.domain or not isinstance(tensor, TensorProto):
        return None
    value = external.values_of(tensor)
    return value if value.size <= FOLD_LIMIT else None


def _is_foldable(graph: Graph, node: Node, known: set[str]) -> bool:
    if node.op_type in _NEVER_FOLDED or node.domain:
        return False
    if any(isinstance(value, onnx.GraphProto) for value in node.attributes.values()):
        return False
    if not all(graph.is_tensor(name) for name in node.outputs):
        return False
    if any(_elements(graph, name) > FOLD_LIMIT for name in node.outputs):
        return False
    if not all(graph.elem_type(name) in _COMPUTED for name in node.outputs if name):
        return False
    return all(not name or name in known or graph.is_constant(name) for name in node.inputs)


def _elements(graph: Graph, name: str) -> int:
    """Elements of a tensor as far as they are known, so that no terabyte is computed to be told."""
    return math.prod(size for size in graph.shape(name) or () if isinstance(size, int))


def _evaluate(
    model: Model, nodes: list[Node], given: dict[str, Array], needed: list[str]
) -> dict[str, Array] | None:
    """Run the constant part of the graph; None where ONNX Runtime cannot."""
    names = sorted(name for name in needed if name not in given)
    values = {name: given[name] for name in needed if name in given}
    if not names:
        return values
    protos = [model.proto.graph.node[node.index] for node in nodes]
    read = {name for proto in protos for name in proto.input}
    part = ModelProto()
    part.CopyFrom(model.proto)
    for field in ("node", "input", "output", "value_info", "initializer"):
        part.graph.ClearField(field)
    part.graph.node.extend(protos)
    part.graph.initializer.extend(t for t in model.proto.graph.initializer if t.name in read)
    part.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in given.items() if name in read
    )
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    try:
        session = open_session(part, optimize=False)
        if any(output.type not in _RUNTIME_TYPES for output in session.get_outputs()):
            return None
        results = run(session, names, {})
    except ModelError as error:
        logging.getLogger(__name__).debug("constants stay computed at run time: %s", error)
        return None
    if any(not isinstance(r, np.ndarray) or r.size > FOLD_LIMIT for r in results):
        return None
    return values | dict(zip(names, results, strict=True))


def _with_values(model: Model, folded: set[int], values: dict[str, Array]) -> Model:
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    kept = [node for index, node in enumerate(proto.graph.node) if index not in folded]
    outputs = {output.name for output in proto.graph.output}
    del proto.graph.node[:]
    for name in sorted(values):
        # A graph output must be the output of a node.
        if name in outputs:
            tensor = numpy_helper.from_array(values[name])
            kept.append(
                onnx.helper.make_node("Constant", [], [name], f"Constant_{name}", value=tensor)
            )
        else:
            proto.graph.initializer.append(numpy_helper.from_array(values[name], name))
    proto.graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    used |= {name for node in kept for name in names_in_subgraphs(node)} | outputs
    inputs = {i.name for i in proto.graph.input}
    initializers = [t for t in proto.graph.initializer if t.name in used or t.name in inputs]
    infos = [i for i in proto.graph.value_info if i.name in used]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(initializers)
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(infos)
    return Model(proto, model.source)


# --- factors of Gemm -------------------------------------------------------------------------


def _fold_factors(model: Model) -> Model:
    """Multiply alpha into the weight and beta into the bias, and make the bias a vector.

    Integer kernels take a bias in steps of input scale × weight scale and know neither factor.
    """
    graph = Graph(model)
    values: dict[tuple[str, int], Array] = {}
    for node in graph.nodes:
        row = operator_of(node)
        if row is not None and row.scale is ScaleRule.LINEAR:
            values |= _without_factors(graph, node)
    if not values:
        return model

    def change(gs_graph: Any) -> None:
        nodes = {node.name: node for node in gs_graph.nodes}
        for (name, position), value in values.items():
            nodes[name].inputs[position] = constant(f"{name}.{position}.folded", value)
            nodes[name].attrs.pop("alpha" if position == 1 else "beta", None)

    return edit(model, change)


def _without_factors(graph: Graph, node: Node) -> dict[tuple[str, int], Array]:
    """(node, input position) → the constant that needs no factor, for those that have one."""
    layout = weight_layout(graph, node)
    if isinstance(layout, Refusal):
        return {}
    values: dict[tuple[str, int], Array] = {}
    weight, bias = graph.constant(layout.weight), graph.constant(layout.bias)
    alpha, beta = (node.attributes.get(key, 1.0) for key in ("alpha", "beta"))
    if weight is not None and alpha != 1:
        values[node.name, 1] = (weight * np.float64(alpha)).astype(np.float32)
    if bias is not None:
        vector = layout.bias_vector(bias)
        plain = bias if vector is None else vector
        if beta != 1 or plain.shape != bias.shape:
            values[node.name, 2] = (plain * np.float64(beta)).astype(np.float32)
    return values


# --- batch norms -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fold:
    weighted: Node
    batch_norm: Node
    layout: WeightLayout
    weight: Array
    bias: Array


def _fold_batch_norms(model: Model) -> tuple[Model, dict[str, str]]:
    """Fold until none is left: of two in a row the second follows the weighted node only then."""
    folded: dict[str, str] = {}
    while True:
        model, more = _fold_batch_norms_once(model)
        folded |= more
        if not more:
            return model, folded


def _fold_batch_norms_once(model: Model) -> tuple[Model, dict[str, str]]:
    graph = Graph(model)
    folds = [fold for node in graph.nodes if (fold := _fold_of(graph, node)) is not None]
    if not folds:
        return model, {}

    def change(gs_graph: Any) -> None:
        nodes = {node.name: node for node in gs_graph.nodes}
        for fold in folds:
            weighted, batch_norm = nodes[fold.weighted.name], nodes[fold.batch_norm.name]
            weighted.inputs = [
                weighted.inputs[0],
                constant(f"{fold.weighted.name}.weight_folded", fold.weight),
                constant(f"{fold.weighted.name}.bias_folded", fold.bias),
            ]
            weighted.outputs = list(batch_norm.outputs)
            batch_norm.outputs = []
            # Without a bias its factor was idle; now it would scale the folded one.
            weighted.attrs.pop("beta", None)

    edited = edit(model, change)
    return edited, {fold.batch_norm.name: fold.weighted.name for fold in folds}


def _fold_of(graph: Graph, batch_norm: Node) -> _Fold | None:
    """The fold of a batch norm into the weighted node before it; None where it cannot be."""
    row = operator_of(batch_norm)
    if row is None or row.scale is not ScaleRule.BATCH_NORM:
        return None
    weighted = graph.producers.get(batch_norm.input(0))
    if weighted is None or not is_weighted(weighted):
        return None
    layout = weight_layout(graph, weighted)
    # MatMul takes no bias, so a batch norm after it stays.
    if isinstance(layout, Refusal) or len(weighted.inputs) < 2 or layout.output_axis != 1:
        return None
    shared = len(graph.consumers(weighted.output)) > 1 or graph.is_exposed(weighted.output)
    parameters = [graph.constant(name) for name in batch_norm.inputs[1:5]]
    bias = graph.constant(layout.bias) if layout.bias else np.zeros((), np.float32)
    weight = graph.constant(layout.weight)
    if shared or bias is None or weight is None or any(p is None for p in parameters):
        return None
    if batch_norm.attributes.get("training_mode", 0):
        return None
    gamma, beta, mean, variance = (np.asarray(p, np.float64) for p in parameters)
    gain = gamma / np.sqrt(variance + batch_norm.attributes.get("epsilon", 1e-5))
    vector = layout.bias_vector(bias)
    if vector is None:
        return None
    folded = layout.to_output_major(weight.astype(np.float64)) * gain[:, None, None]
    shift = (vector - mean) * gain + beta
    return _Fold(
        weighted, batch_norm, layout,
        layout.from_output_major(folded).astype(np.float32), shift.astype(np.float32),
    )  # fmt: skip


# --- pads ------------------------------------------------------------------------------------


def _fold_pads(model: Model) -> tuple[Model, dict[str, str]]:
    """Let a convolution do the zero padding before it: one kernel less, in float and quantized."""
    graph = Graph(model)
    folds = {
        node.name: (use.node.name, pads)
        for node in graph.nodes
        for use in graph.consumers(node.output)[:1]
        if (pads := _foldable_pads(graph, node, use.node)) is not None and use.position == 0
    }
    if not folds:
        return model, {}

    def change(gs_graph: Any) -> None:
        nodes = {node.name: node for node in gs_graph.nodes}
        for pad, (conv, pads) in folds.items():
            nodes[conv].inputs[0] = nodes[pad].inputs[0]
            nodes[conv].attrs["pads"] = pads
            nodes[conv].attrs.pop("auto_pad", None)
            nodes[pad].outputs = []

    return edit(model, change), {pad: conv for pad, (conv, _) in folds.items()}


def _foldable_pads(graph: Graph, pad: Node, conv: Node) -> list[int] | None:
    """The convolution's pads once it does the Pad's work; None where it cannot."""
    row, consumer, rank = operator_of(pad), operator_of(conv), graph.rank(pad.input(0))
    if row is None or row.op_type != "Pad" or consumer is None or rank is None:
        return None
    # ConvTranspose crops by its pads, so only Conv will do.
    if consumer.op_type != "Conv" or len(graph.consumers(pad.output)) > 1:
        return None
    axes = row.mixed_axes(graph, pad, rank)
    automatic = conv.attributes.get("auto_pad", b"NOTSET") not in {b"NOTSET", b"VALID"}
    constant_mode = pad.attributes.get("mode", b"constant") == b"constant"
    if isinstance(axes, Refusal) or automatic or not constant_mode or graph.is_exposed(pad.output):
        return None
    amounts = graph.constant(pad.input(1))
    if amounts is None or pad.input(3) or min(axes, default=2) < 2 or amounts.min() < 0:
        return None
    added = [*amounts[2:rank].tolist(), *amounts[rank + 2 :].tolist()]
    existing = conv.attributes.get("pads", [0] * len(added))
    return [int(a + b) for a, b in zip(existing, added, strict=True)]
