"""Nothing runs on the CPU in place of CUDA, and what is missing is named."""

import numpy as np
import onnxruntime as ort
import pytest
from onnx import parser
from onnxq.errors import ModelError, ProviderError
from onnxq.model import cuda
from onnxq.model.session import open_session

RELU = """<ir_version: 8, opset_import: ["": 17]>
    g (float[n] x) => (float[n] y) { m = Relu(x)  y = Exp(m) }"""
STRINGS = """<ir_version: 8, opset_import: ["": 20]>
    g (string[n] x) => (string[n] y) { y = StringConcat(x, x) }"""


def why_not() -> str:
    try:
        cuda.require_cuda()
    except ProviderError as error:
        return error.message
    return ""


NO_CUDA = why_not()
on_a_gpu = pytest.mark.skipif(bool(NO_CUDA), reason=f"needs an NVIDIA GPU: {NO_CUDA}")


def named(text: str):
    """The model with names on its nodes."""
    model = parser.parse_model(text)
    for node in model.graph.node:
        node.name = f"the_{node.op_type.lower()}"
    return model.SerializeToString()


def options() -> ort.SessionOptions:
    found = ort.SessionOptions()
    found.log_severity_level = 4
    found.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return found


def test_nodes_on_another_provider_are_named():
    chosen = options()
    chosen.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = ort.InferenceSession(named(RELU), chosen, providers=["CPUExecutionProvider"])
    assert cuda.elsewhere(session, "CPUExecutionProvider") == ()
    assert set(cuda.elsewhere(session)) == {"Relu the_relu", "Exp the_exp"}


def test_a_refusal_names_some_nodes_and_counts_the_others():
    nodes = [f"Conv c{i}" for i in range(cuda.NAMED + 2)]
    assert cuda.in_words(nodes[:2]) == "Conv c0, Conv c1"
    assert cuda.in_words(nodes).endswith(f"Conv c{cuda.NAMED - 1} and 2 more")


def test_a_provider_that_does_not_start_is_not_blamed_on_the_model():
    """ONNX Runtime then says that nodes are on the CPU, as it does for a missing kernel."""
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this build of onnxruntime has no CUDA provider")
    if not NO_CUDA:
        pytest.skip("there is a CUDA device")
    with pytest.raises(ProviderError, match="did not start"):
        cuda.open_on_cuda(named(RELU), options())


def test_missing_libraries_are_named_with_the_line_that_mends_it():
    found = [cuda.Library("libcudart.so.13"), cuda.Library("libcudnn.so.9", "cannot open")]
    with pytest.raises(ProviderError, match=r"cannot load libcudnn\.so\.9 ") as error:
        cuda.check_libraries(found)
    assert "onnxruntime-gpu[cuda,cudnn]" in error.value.hint
    cuda.check_libraries(found[:1])


def test_looking_for_libraries_prints_nothing(capfd):
    names = [library.name for library in cuda.libraries()]
    assert capfd.readouterr().out == ""
    assert len(names) == len(set(names))


@pytest.mark.gpu
@on_a_gpu
def test_a_model_that_cuda_can_run_runs_there():
    session = open_session(parser.parse_model(RELU), provider="cuda")
    (y,) = session.run(None, {"x": np.float32([-1, 1])})
    assert np.allclose(y, np.exp([0, 1]), rtol=1e-6)


@pytest.mark.gpu
@on_a_gpu
def test_a_node_without_a_kernel_is_refused_by_name():
    with pytest.raises(ModelError, match="StringConcat the_stringconcat"):
        cuda.open_on_cuda(named(STRINGS), options())
