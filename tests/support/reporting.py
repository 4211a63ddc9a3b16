"""What the tests of the report look at."""

from dataclasses import dataclass

import numpy as np
import onnx
from onnxq.model.model import Model
from onnxq.report.html.collect import Report


@dataclass(frozen=True)
class Reported:
    """Models, data and the facts of the report on them; `plain` without what makes int8 good."""

    model: Model
    int8: Model
    plain: Model
    data: dict[str, np.ndarray]
    report: Report


def renamed(model: Model, old: str, new: str) -> Model:
    """The model with one node renamed."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for node in proto.graph.node:
        node.name = new if node.name == old else node.name
    return Model(proto, model.source)


EVIL = "<script>alert('x')</script><img src=http://example.com/x.png onerror=alert(1)>&amp;"
"""A node's name that is no harm as text."""
