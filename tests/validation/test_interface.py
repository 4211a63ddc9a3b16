"""Whether two models are versions of one, and which of their outputs are looked at."""

import pytest
from onnx import TensorProto, helper
from onnxq.errors import ModelError, UsageError
from onnxq.model.model import Model
from onnxq.validation.interface import (
    check_interface,
    check_shape,
    choose_outputs,
    require_float_output,
)


def model(name="float", *, x="x", size=3, outputs=("y", "ids")):
    """y is x, of a first axis that is open; ids are integers."""
    node = helper.make_node
    info = helper.make_tensor_value_info
    nodes = [node("Identity", [x], ["y"]), node("Cast", [x], ["ids"], to=TensorProto.INT64)]
    kinds = {"y": TensorProto.FLOAT, "ids": TensorProto.INT64}
    graph = helper.make_graph(
        nodes, name, [info(x, TensorProto.FLOAT, ["N", size])],
        [info(each, kinds[each], ["N", size]) for each in outputs],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    return Model(helper.make_model(graph, opset_imports=opset, ir_version=8))


def test_without_names_all_outputs_are_meant():
    assert choose_outputs(model(), ()) == ("y", "ids")
    assert choose_outputs(model(), ["ids", "y", "ids"]) == ("ids", "y")


def test_an_output_that_is_not_there_is_named():
    with pytest.raises(UsageError, match="float has no output 'id'") as caught:
        choose_outputs(model(), ["y", "id"])
    assert caught.value.hint == "did you mean 'ids'?"
    with pytest.raises(UsageError) as caught:
        choose_outputs(model(), ["z"])
    assert caught.value.hint == "its outputs are: y, ids"


def test_integers_alone_decide_nothing():
    require_float_output(model(), (), "sqnr")
    require_float_output(model(), ["ids", "y"], "sqnr")
    with pytest.raises(UsageError, match="sqnr has nothing to look at: no float output among ids"):
        require_float_output(model(), ["ids"], "sqnr")


def test_names_have_to_agree():
    check_interface(model(), model("other"))
    with pytest.raises(ModelError, match="int8 is no version of float: inputs z instead of x"):
        check_interface(model(), model("int8", x="z"))
    with pytest.raises(ModelError, match="outputs ids, y instead of y, ids"):
        check_interface(model(), model("int8", outputs=("ids", "y")))


def test_shapes_may_differ_where_they_depend_on_the_data():
    check_shape(model(), model("int8"), "y", (2, 3), (5, 3))
    check_shape(model(), model("int8", size="width"), "y", (2, 3), (2, 4))
    with pytest.raises(ModelError, match="output 'y' has the shape 2×4 instead of 2×3"):
        check_shape(model(), model("int8", size=4), "y", (2, 3), (2, 4))
    with pytest.raises(ModelError, match="'y' has the shape 2 instead of 2×3"):
        check_shape(model(), model("int8"), "y", (2, 3), (2,))
