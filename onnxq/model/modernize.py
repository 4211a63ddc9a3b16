"""Bring models of old exporters to today's format: IR version, local functions, operator set."""

from __future__ import annotations

import enum

import numpy as np
import onnx
import onnx.inliner
from onnx import ModelProto, NodeProto

from onnxq.errors import ModelError
from onnxq.model.files import infer_shapes
from onnxq.model.function_defaults import with_defaults_given
from onnxq.model.graph import Graph, nodes_in
from onnxq.model.model import Model, TensorSpec
from onnxq.model.rewrite import lowest_ir_version
from onnxq.model.trials import difference, run_trials

LOWEST_OPSET = 13
"""First operator set with per-channel DequantizeLinear."""

OLDEST_IR = 8
"""IR version that every runtime with Q/DQ per channel reads."""

CONVERTED = 1e-5
"""Largest difference, rms over rms, of an output after the operator set was raised."""

FREE_WEIGHTS = 4
"""First IR version in which an initializer need not be a graph input too."""


def free_weights(model: Model) -> tuple[Model, int]:
    """Make the weights constants where all of them are listed as inputs. Returns how many.

    Their being listed says nothing then: it was the only way to write a weight before IR version 4,
    and exporters went on with it for years. Later models that list some, or their only one, let a
    caller override them.
    """
    given = {tensor.name for tensor in model.message.graph.initializer}
    listed = {each.name for each in model.message.graph.input} & given
    is_habit = listed == given and len(given) > 1
    if not listed or (model.message.ir_version >= FREE_WEIGHTS and not is_habit):
        return model, 0
    proto = ModelProto()
    proto.CopyFrom(model.message)
    kept = [i for i in proto.graph.input if i.name not in given]
    count = len(proto.graph.input) - len(kept)
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    proto.ir_version = max(proto.ir_version, FREE_WEIGHTS)
    return Model.adopt(proto, model.source), count


def trim_outputs(model: Model) -> Model:
    """The model without the optional outputs, at the end of a node's, that are listed as absent.

    ONNX Runtime takes that of a MaxPool for a tensor where the layout changes (1.32).
    """

    def ends_absent(node: NodeProto) -> bool:
        return len(node.output) > 1 and not node.output[-1]

    if not any(map(ends_absent, nodes_in(model.message.graph.node))):
        return model
    proto = ModelProto()
    proto.CopyFrom(model.message)
    for node in filter(ends_absent, nodes_in(proto.graph.node)):
        while ends_absent(node):
            node.output.pop()
    return Model.adopt(proto, model.source)


def lower_ir_version(model: Model) -> Model:
    """The model with the lowest IR version that its operator sets need, from `OLDEST_IR` on.

    Runtimes refuse versions newer than themselves, also of models in which nothing is new.
    """
    lowest = max(lowest_ir_version(model.message), OLDEST_IR)
    if model.message.ir_version == lowest:
        return model
    proto = ModelProto()
    proto.CopyFrom(model.message)
    proto.ir_version = lowest
    return Model.adopt(proto, model.source)


def inline_functions(model: Model) -> tuple[Model, int]:
    """Write out the model-local functions, whose nodes no later stage would see. Returns how many.

    Raises `ModelError` where they cannot be.
    """
    count = len(model.message.functions)
    if not count:
        return model, 0
    try:
        whole = with_defaults_given(model.message)
        proto = onnx.inliner.inline_local_functions(whole, convert_version=True)
    except Exception as error:  # noqa: BLE001 - the inliner raises its own C++ exceptions
        raise ModelError(
            f"{model.name}: its functions cannot be inlined: {_short(error)}",
            hint="export the model without functions",
        ) from None
    return infer_shapes(Model.adopt(proto, model.source)), count


def raise_opset(model: Model, opset: int = LOWEST_OPSET) -> tuple[Model, int]:
    """Raise the operator set to this version. Returns the old one, 0 if it was recent enough.

    Raises `ModelError` where it cannot be converted.
    """
    if not 0 < model.opset < opset:
        return model, 0
    raised = _converted(model, opset)
    change = _change(model, raised)
    if change is Change.INTERFACE or (change is Change.KNOWN and not _agree(model, raised)):
        raise ModelError(
            f"{model.name}: raising opset {model.opset} to {opset} would change its inputs "
            "or outputs",
            hint=f"export the model with opset {opset} or newer",
        )
    return raised, model.opset


class Change(enum.Enum):
    """What a conversion did to the inputs and outputs of a model."""

    NONE = "none"
    KNOWN = "known"
    """The number of axes of some is known in only one of the two."""
    INTERFACE = "interface"


def _change(before: Model, after: Model) -> Change:
    pairs = list(zip(_interface(before), _interface(after), strict=False))
    if len(_interface(before)) != len(_interface(after)):
        return Change.INTERFACE
    if any(a[:2] != b[:2] or (None not in {a[2], b[2]} and a[2] != b[2]) for a, b in pairs):
        return Change.INTERFACE
    return Change.NONE if all(a == b for a, b in pairs) else Change.KNOWN


def _interface(model: Model) -> list[tuple[str, object, int | None]]:
    def seen(spec: TensorSpec) -> tuple[str, object, int | None]:
        return spec.name, spec.dtype, None if spec.shape is None else len(spec.shape)

    return [seen(spec) for spec in (*model.inputs, *model.outputs)]


def _agree(before: Model, after: Model) -> bool:
    """Whether both compute the same of random inputs."""
    names = [spec.name for spec in before.outputs]
    first, second = run_trials(before, names), run_trials(after, names)
    return len(first) == len(second) > 0 and all(
        run.keys() == other.keys()
        and all(difference(run[name], other[name]) <= CONVERTED for name in run)
        for run, other in zip(first, second, strict=True)
    )


_ASIDE = "onnxq.aside"
"""The domain of operators that the converter must not see."""


def _converted(model: Model, opset: int) -> Model:
    try:
        proto = onnx.version_converter.convert_version(_set_aside(model.message), opset)
    except Exception as error:  # noqa: BLE001 - the converter raises RuntimeError and its own C++ exceptions
        raise ModelError(
            f"{model.name}: opset {model.opset} cannot be raised to {opset}: {_short(error)}",
            hint=f"export the model with opset {opset} or newer",
        ) from None
    _put_back(proto)
    if model.opset < _RESIZE_WITH_MODES:
        _keep_old_resize(proto)
    return infer_shapes(Model.adopt(proto, model.source))


def _set_aside(proto: ModelProto) -> ModelProto:
    """The model with what ONNX Runtime alone puts into ONNX's domain in another one.

    The converter refuses a model with an operator that ONNX does not know there.
    """
    if all(map(_is_known, nodes_in(proto.graph.node))):
        return proto
    result = ModelProto()
    result.CopyFrom(proto)
    for node in nodes_in(result.graph.node):
        if not _is_known(node):
            node.domain = _ASIDE
    result.opset_import.add(domain=_ASIDE, version=1)
    return result


def _put_back(proto: ModelProto) -> None:
    for node in nodes_in(proto.graph.node):
        if node.domain == _ASIDE:
            node.domain = ""
    kept = [each for each in proto.opset_import if each.domain != _ASIDE]
    if len(kept) < len(proto.opset_import):
        del proto.opset_import[:]
        proto.opset_import.extend(kept)


def _is_known(node: NodeProto) -> bool:
    return node.domain not in {"", "ai.onnx"} or onnx.defs.has(node.op_type)


_RESIZE_WITH_MODES = 11


def _keep_old_resize(proto: ModelProto) -> None:
    """Say how Upsample and Resize-10 found their samples; the converter forgets to.

    They read position x / scale, rounded down where they enlarge and, in ONNX Runtime, up where
    they shrink; newer defaults differ.
    """
    graph = Graph(Model.adopt(proto))
    for index, node in enumerate(proto.graph.node):
        if node.op_type != "Resize" or node.domain:
            continue
        scales = graph.constant(graph.nodes[index].input(2))
        factors = np.ones(1) if scales is None else scales
        shrinks = bool(np.any(factors < 1))
        if shrinks and np.any(factors > 1):
            raise ModelError(f"Resize {node.name!r} shrinks one axis and enlarges another")
        given = {attribute.name for attribute in node.attribute}
        for key, value in (
            ("coordinate_transformation_mode", "asymmetric"),
            ("nearest_mode", "ceil" if shrinks else "floor"),
        ):
            if key not in given:
                node.attribute.append(onnx.helper.make_attribute(key, value))


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
