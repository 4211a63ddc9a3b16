"""Models whose layers compute in float64, as NumPy, scikit-learn and JAX export them.

Nothing that quantizes takes float64, so such a model becomes float32 inside, all of it. Where no
layer is float64, as in a shape or a box that is computed so, float64 stays: it is in nobody's way.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import TensorProto

from onnxq.errors import ModelError
from onnxq.model.graph import Graph, Node
from onnxq.model.model import Model
from onnxq.model.operators import is_weighted
from onnxq.model.widen import in_float32

LARGEST_DIFFERENCE = 1e-6
"""Of an output's rms: about sixteen times what one rounding to float32 costs, 6e-8."""


@dataclass(frozen=True)
class NarrowedDoubles:
    """How a float64 model became float32.

    Attributes:
        tensors: how many were float64.
        difference: rms of the difference between the outputs of the model as given and those of
            the normalized one, over the rms of the former; of the worst output. None where it was
            not measured.
        samples: what it was measured on.
        random: whether these are random numbers.
    """

    tensors: int
    difference: float | None = None
    samples: int = 0
    random: bool = False


def narrow_doubles(model: Model) -> tuple[Model, NarrowedDoubles | None]:
    """The model in float32, if any of its layers computes in float64; else as it is, and None."""
    graph = Graph(model)
    if not any(_is_double_layer(graph, node) for node in graph.nodes):
        return model, None
    narrowed, tensors = in_float32(model, {TensorProto.DOUBLE})
    return narrowed, NarrowedDoubles(tensors)


def require_close(model: Model, narrowed: NarrowedDoubles) -> None:
    """Raise `ModelError` where float32 is not close enough to the file as given."""
    difference = narrowed.difference
    if difference is None or difference <= LARGEST_DIFFERENCE:
        return
    of = "random samples" if narrowed.random else "samples"
    raise ModelError(
        f"{model.name}: its layers compute in float64, and in float32 the outputs differ by "
        f"{difference:.1e} of their rms on {narrowed.samples} {of}; the limit is "
        f"{LARGEST_DIFFERENCE:.0e}",
        hint="where that is close enough, export it in float32 yourself",
    )


def _is_double_layer(graph: Graph, node: Node) -> bool:
    return is_weighted(node) and any(
        graph.elem_type(name) == TensorProto.DOUBLE for name in node.inputs if name
    )
