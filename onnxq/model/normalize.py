"""Bring a model to the one form that every later stage reads.

Afterwards each node has a name of its own and leads to an output, functions and ONNX Runtime's
fused operators are written out, the operator set is recent enough for per-channel Q/DQ, types and
axes are known, values known before run time are initializers, so are the shapes of Reshapes, zero
pads are part of the convolution behind them, limits are Clips, and constants around a weighted
operator are part of its weight and bias: those of a batch norm, W' = W·γ/√(σ²+ε),
b' = (b − μ)·γ/√(σ²+ε) + β, and those of a Mul, Div, Add or Sub.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from onnx import ModelProto

from onnxq.model.constants import fold_constants
from onnxq.model.doubles import NarrowedDoubles, narrow_doubles
from onnxq.model.factors import fold_gemm_factors
from onnxq.model.files import infer_shapes
from onnxq.model.graph import Graph, Node
from onnxq.model.learned import correct_outputs, learn_types
from onnxq.model.model import Model
from onnxq.model.modernize import (
    LOWEST_OPSET,
    free_weights,
    inline_functions,
    lower_ir_version,
    raise_opset,
    trim_outputs,
)
from onnxq.model.operators import is_of_quantized_models, operator_of
from onnxq.model.plugins import names_of_plugins
from onnxq.model.rewrite import edit
from onnxq.model.shapes import fix_reshapes
from onnxq.model.simplify import fold_usual, simplify
from onnxq.model.sparse import write_out_sparse
from onnxq.model.take_apart import TakenApart, take_apart
from onnxq.model.widen import widen
from onnxq.refusal import Refusal

FOLDS = ("folded_batch_norms", "folded_pads", "joined_biases", "folded_factors", "merged_limits")
"""Fields of `Normalization`, and of the record in a quantized model, that say where nodes went."""


@dataclass(frozen=True)
class Normalization:
    """What `normalize` did.

    Attributes:
        folded_batch_norms: batch norm node → weighted node that absorbed it.
        folded_pads: Pad node → convolution that now pads by itself.
        joined_biases: Add or Sub node → weighted node whose bias its constant is part of now.
        folded_factors: Mul or Div node by a constant → weighted node whose weight took it up.
        merged_limits: Relu or Clip node → the Clip behind it that limits for both.
        moved_activations: activation → weighted node that it follows now, before a change of axes.
        taken_apart: fused operator of ONNX Runtime → how far its parts differ from it, rms over
            rms.
        left_fused: fused operator → why it was not taken apart.
        folded_constants: nodes replaced by their value, and sparse weights written out.
        raised_from: the file's operator set, where it was raised; else 0.
        renamed: number of nodes that had no name or shared one.
        widened: number of tensors that were float16 or bfloat16 and are float32 now.
        narrowed: how a model with layers in float64 became float32; None where there are none.
        freed: number of weights that were all listed as inputs, as old exporters do it.
        inlined: number of model-local functions that were written out.
        unused: number of nodes that no output depends on, removed.
        copies: number of nodes that changed nothing, removed.
        clips: number of Min and Max nodes with a constant that are Clip now.
        learned: number of tensors whose type or axes only ONNX Runtime told.
        plugins: operators at the end that ONNX Runtime does not know; they come back when the model
            is saved.
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
    folded_factors: dict[str, str] = field(default_factory=dict)
    merged_limits: dict[str, str] = field(default_factory=dict)
    moved_activations: dict[str, str] = field(default_factory=dict)
    taken_apart: dict[str, float] = field(default_factory=dict)
    left_fused: dict[str, str] = field(default_factory=dict)
    copies: int = 0
    clips: int = 0
    learned: int = 0
    plugins: tuple[str, ...] = ()
    narrowed: NarrowedDoubles | None = None

    @property
    def folds(self) -> dict[str, dict[str, str]]:
        """Kind of fold → node that is gone → node that does its work; see `FOLDS`."""
        found: dict[str, dict[str, str]] = {kind: getattr(self, kind) for kind in FOLDS}
        return found


def normalize(model: Model, *, opset: int = 0) -> tuple[Model, Normalization]:
    """Normalize a float model; its outputs stay equal up to rounding.

    Args:
        model: one that has Q/DQ is not simplified: its kernels depend on what stands beside what.
        opset: raise the operator set to this version, if lower; always to `LOWEST_OPSET`.

    Raises:
        ModelError: the operator set is too old and cannot be converted.
    """
    model, freed = free_weights(model)
    model, inlined = inline_functions(model)
    model, dense = write_out_sparse(model)
    model, raised_from = raise_opset(correct_outputs(model), max(opset, LOWEST_OPSET))
    model, widened = widen(trim_outputs(model))
    model, renamed = name_nodes(model)
    model, unused = _drop_unused(model)
    model, constants = fold_constants(model)
    model = fix_reshapes(model)
    model, learned = learn_types(model)
    quantized = any(is_of_quantized_models(node.op_type) for node in Graph(model).nodes)
    model, narrowed = (model, None) if quantized else narrow_doubles(model)
    model, apart = (model, TakenApart({}, {})) if quantized else take_apart(model)
    model, more = fold_constants(model) if apart.differences else (model, 0)
    model = fold_gemm_factors(model)
    model, simpler = fold_usual(model) if quantized else simplify(model)
    model, pads = _fold_pads(model)
    return lower_ir_version(infer_shapes(model)), Normalization(
        simpler.folded.batch_norms, pads, simpler.folded.biases, dense + constants + more,
        raised_from, renamed, widened, freed, inlined, unused, simpler.folded.factors,
        simpler.merged, simpler.moved, apart.differences, apart.kept, simpler.copies,
        simpler.clips, learned, tuple(names_of_plugins(model.message)), narrowed,
    )  # fmt: skip


def name_nodes(model: Model) -> tuple[Model, int]:
    """Give every node a name that no other has; names that are unique stay."""
    names = [node.name for node in model.message.graph.node]
    if all(names) and len(set(names)) == len(names):
        return model, 0
    proto = ModelProto()
    proto.CopyFrom(model.message)
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
    return Model.adopt(proto, model.source), len(pending)


def _drop_unused(model: Model) -> tuple[Model, int]:
    """Without the nodes that no output depends on."""
    graph = Graph(model)
    if all(any(map(graph.is_read, node.outputs)) for node in graph.nodes):
        return model, 0
    smaller = edit(model, lambda _: None)  # every edit drops them
    return smaller, len(graph.nodes) - len(smaller.message.graph.node)


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
