"""How the emulator agrees with ONNX Runtime: the CPU provider's integer kernels, or CUDA.

Layer by layer, each on identical inputs: a layer is what lies between two quantized tensors. End to
end nothing is compared, since one value that differs by one step changes what later layers read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxq.data.batching import elements_of_sample
from onnxq.data.budget import USUAL, Limits, OneSample, plan_batching
from onnxq.data.gather import run_batch
from onnxq.emulation.emulate import Machine
from onnxq.model.files import infer_shapes
from onnxq.model.graph import Graph, Node
from onnxq.model.model import Model
from onnxq.model.operators import (
    DEQUANTIZE,
    DYNAMIC_QUANTIZE,
    QUANTIZE,
    is_dequantize,
    is_dynamic_quantize,
    is_quantize,
)
from onnxq.model.session import open_session, run, with_graph, with_outputs
from onnxq.model.subgraph import names_read, subgraph_model
from onnxq.progress import SILENT, Progress

if TYPE_CHECKING:
    import onnxruntime as ort

Array = NDArray[Any]

_FLOAT_SUMS = "adds float32 products and rounds each sum"

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "QLinearAdd": "rescales operands by ratios and adds the zero point before it rounds",
        "QLinearMul": "adds the zero point before it rounds, so ties fall otherwise",
        "QLinearAveragePool": "averages dequantized float32 values",
        **dict.fromkeys(
            ("Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"),
            _FLOAT_SUMS,
        ),
    }
)
"""ONNX Runtime kernel → how it computes otherwise than the emulator."""

INTEGER_KERNELS = ("QLinear", "QGemm", "MatMulInteger", "DynamicQuantize", "QAttention")
"""How the names of ONNX Runtime's integer kernels begin."""

_PLAIN = frozenset({QUANTIZE, DYNAMIC_QUANTIZE, DEQUANTIZE, "ReorderInput", "ReorderOutput"})

SATURATES = "adds products in 16 bits, which saturate on a CPU without VNNI"
UNKNOWN = "computes in another order of float32 operations"


@dataclass(frozen=True)
class LayerAgreement:
    """One quantized tensor, computed from the same inputs by both.

    Attributes:
        tensor: the integer tensor.
        node: the node whose result it is, fused activations aside.
        kernels: operators that ONNX Runtime ran, Q/DQ aside.
        values, differing: how many were compared, and how many were not the same.
        largest: largest difference, steps of the tensor (LSB).
        reason: why they differ; "" where they do not.
    """

    tensor: str
    node: str
    kernels: tuple[str, ...]
    values: int
    differing: int
    largest: int
    reason: str

    @property
    def share(self) -> float:
        """Differing over all values."""
        return self.differing / max(self.values, 1)


@dataclass
class _Layer:
    """One layer while it is compared."""

    tensor: str
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    session: ort.InferenceSession | None = None
    kernels: tuple[str, ...] = ()
    values: int = 0
    differing: int = 0
    largest: int = 0
    shape: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def agreement(
    emulator: Machine,
    batches: Sequence[Mapping[str, Array]],
    *,
    provider: str = "cpu",
    limits: Limits = USUAL,
    progress: Progress = SILENT,
) -> tuple[LayerAgreement, ...]:
    """Compare every layer with what ONNX Runtime makes of it, in the order of the model.

    Args:
        emulator: of the QDQ model.
        batches: values of the model's inputs.
        provider: "cpu", with its integer kernels, or "cuda", which computes Q/DQ as written.
        limits: what may run at once.

    Raises:
        ProviderError: no CUDA device.
        ModelError: the model does not run, not even on single samples.
    """
    graph = Graph(emulator.source)
    layers = [
        _layer(graph, node)
        for node in graph.nodes
        if _quantizes(node) and not graph.is_constant(node.input(0))
    ]
    if not layers:
        return ()
    names = sorted({name for layer in layers for name in (layer.tensor, *layer.inputs)})
    known = set(graph.inputs)
    produced = [name for name in names if name not in known]
    model = infer_shapes(Model.adopt(with_outputs(emulator.machine, produced)))
    # All layers of a batch are there at once; one batch runs at a time, on all cores.
    sample = OneSample(model, lambda: max(batches, key=elements_of_sample), integers=True)
    batching = plan_batching(sample, limits, kept=produced)
    machine = open_session(model, keep_qdq=True, lean=batching.large)
    parts = [part for batch in batches for part in batching.parts(batch)]
    with progress.track("compare", None) as advance:
        for batch in parts:
            for feeds, found in run_batch(partial(run, machine, produced), batch):
                values = dict(zip(produced, found, strict=True))
                values |= {name: feeds[name] for name in known}
                for layer in layers:
                    _compare(graph, layer, values, provider)
            advance(1)
    return tuple(_finish(layer) for layer in layers)


def _quantizes(node: Node) -> bool:
    return is_quantize(node) or is_dynamic_quantize(node)


def _layer(graph: Graph, quantizer: Node) -> _Layer:
    """What computes a quantized tensor from other ones.

    A float tensor that several nodes read is an input as well, so that no layer holds another.
    A sequence, which cannot be, is computed in each.
    """
    found: dict[int, Node] = {quantizer.index: quantizer}
    inputs: set[str] = set()
    pending = [(name, True) for name in quantizer.inputs[:1]]
    while pending:
        name, first = pending.pop()
        producer = graph.producers.get(name)
        if name not in graph.producers and name not in graph.inputs:
            continue  # a constant, or a tensor inside the body of an If or Loop
        shared = len(graph.consumers(name)) > 1 or graph.is_exposed(name)
        shared = shared and graph.is_tensor(name)
        quantized = producer is not None and is_dequantize(producer)
        if producer is None or _quantizes(producer) or (shared and not first and not quantized):
            inputs.add(name)
        elif producer.index not in found:
            found[producer.index] = producer
            pending += [(read, False) for read in names_read(graph, producer)]
    nodes = tuple(found[index] for index in sorted(found))
    # The other output of a node that gives a sequence too, for example.
    inputs -= {name for node in nodes for name in node.results}
    return _Layer(quantizer.output, nodes, tuple(sorted(inputs)))


def _compare(graph: Graph, layer: _Layer, values: Mapping[str, Array], provider: str) -> None:
    if layer.session is None:
        inputs = {
            name: (
                onnx.helper.np_dtype_to_tensor_dtype(values[name].dtype),
                [None] * values[name].ndim,
            )
            for name in layer.inputs
        }
        layer.session, layer.kernels = _open(
            subgraph_model(graph, layer.nodes, inputs, [layer.tensor]), provider
        )
    feeds = {name: values[name] for name in layer.inputs}
    (theirs,) = run(layer.session, [layer.tensor], feeds)
    gap = np.abs(theirs.astype(np.int32) - values[layer.tensor].astype(np.int32))
    layer.values += gap.size
    layer.differing += int(np.count_nonzero(gap))
    layer.largest = max(layer.largest, int(gap.max(initial=0)))


def _open(part: onnx.ModelProto, provider: str) -> tuple[ort.InferenceSession, tuple[str, ...]]:
    """A session with all optimizations, and the kernels it runs.

    Where they find no integer kernel Q/DQ are kept as written: otherwise ONNX Runtime turns float
    biases into int32 ones, which saturate where the weights of a channel are tiny.
    """
    for keep_qdq in (False, True) if provider == "cpu" else (True,):
        # One thread: many small sessions would spin against each other.
        session, optimized = with_graph(
            partial(open_session, part, threads=1, keep_qdq=keep_qdq, provider=provider)
        )
        found = dict.fromkeys(n.op_type for n in optimized.graph.node)
        kernels = tuple(name for name in found if name not in _PLAIN)
        if _integer(kernels):
            break
    return session, kernels


def _integer(kernels: Iterable[str]) -> list[str]:
    return [name for name in kernels if name.startswith(INTEGER_KERNELS)]


def _finish(layer: _Layer) -> LayerAgreement:
    node = next(
        (n for n in reversed(layer.nodes) if not (_quantizes(n) or is_dequantize(n))),
        layer.nodes[-1],
    )
    reason = ""
    if layer.differing:
        reason = _reason(layer.kernels, layer.largest)
    return LayerAgreement(
        layer.tensor, node.name, layer.kernels, layer.values, layer.differing, layer.largest, reason
    )


def _reason(kernels: Sequence[str], largest: int) -> str:
    known = [f"{kernel} {REASONS[kernel]}" for kernel in kernels if kernel in REASONS]
    integer = _integer(kernels)
    if largest > 1 and integer:
        return f"{integer[0]} {SATURATES}"
    return "; ".join(known) or f"{', '.join(kernels) or 'ONNX Runtime'} {UNKNOWN}"
