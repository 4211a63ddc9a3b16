"""Whether a model is quantized already, whoever did it."""

from __future__ import annotations

from collections import Counter

from onnxq.errors import ModelError
from onnxq.model.graph import nodes_in
from onnxq.model.model import Model
from onnxq.model.operators import is_of_quantized_models


def quantized_operators(model: Model) -> Counter[str]:
    """Operators that only quantized models have → how many there are, bodies included."""
    bodies = (model.message.graph.node, *(function.node for function in model.message.functions))
    names = (node.op_type for body in bodies for node in nodes_in(body))
    return Counter(filter(is_of_quantized_models, names))


def counted(operators: Counter[str]) -> str:
    """Such as "2 QuantizeLinear and 4 DequantizeLinear", the most frequent last."""
    texts = [f"{number:,} {name}" for name, number in reversed(operators.most_common())]
    return " and ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))


def require_float(model: Model) -> None:
    """Raise `ModelError` where the model is quantized already."""
    if found := quantized_operators(model):
        raise ModelError(
            f"{model.name}: quantized already, it has {counted(found)}",
            hint="give the float model it was made from",
        )
