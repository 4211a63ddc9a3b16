"""Where models run over data: whether CUDA can be had here."""

from __future__ import annotations

from functools import cache

from onnx import TensorProto, helper

from onnxq.errors import ModelError, ProviderError
from onnxq.model.cuda import require_cuda
from onnxq.model.session import open_session
from onnxq.refusal import Refusal


@cache
def refusal_of_cuda_sessions() -> Refusal | None:
    """Why no session runs on CUDA here; None where one does.

    A driver and libraries may be there and too old, or the device full: the least of models tells.
    """
    try:
        require_cuda()
        info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
        graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", info[:1], info[1:])
        opset = [helper.make_opsetid("", 17)]
        open_session(helper.make_model(graph, opset_imports=opset, ir_version=8), provider="cuda")
    except (ProviderError, ModelError) as error:
        return Refusal(error.message)
    return None
