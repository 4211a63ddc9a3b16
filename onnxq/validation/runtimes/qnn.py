"""Qualcomm's HTP through ONNX Runtime's QNN provider; on x86 its simulator."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from onnxq.model.model import Model
from onnxq.model.session import open_session, run
from onnxq.validation.runtimes.ran import Ran

BYTE = 256
FIXED_POINT = frozenset({0x03, 0x04})
"""High bytes of QNN's codes of data types that are numbers with a scale; the low one has bits."""

FLOAT = 0x02

NUMBERED = re.compile(r"_token_[0-9]+$")
"""What the provider adds to the names of nodes whose name it needs itself."""


def runner(model: Model) -> Any:
    """See `onnxq.validation.runtimes.runner`."""
    session = open_session(model, provider="qnn")
    return lambda feeds: run(session, None, feeds)


def ran(model: Model) -> dict[str, Ran]:
    """See `onnxq.validation.runtimes.ran_in`: from the graphs that the provider made."""
    with tempfile.TemporaryDirectory(prefix="onnxq.") as folder:
        open_session(model, provider="qnn", optimized=Path(folder))
        written = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
    graphs = [each["graph"] for each in written if "graph" in each]
    return {name: kernel for graph in graphs for name, kernel in _kernels(graph)}


def _kernels(graph: Mapping[str, Any]) -> Iterator[tuple[str, Ran]]:
    """Of each node its kind, and whether all it computes is in fixed point."""
    types = {name: int(each["data_type"]) for name, each in graph["tensors"].items()}
    for name, node in graph["nodes"].items():
        given = [types[each] for each in node["output_names"] if each in types]
        integer = bool(given) and all(each // BYTE in FIXED_POINT for each in given)
        numbers = " ".join(sorted({_said(each) for each in given}))
        yield NUMBERED.sub("", name), Ran(f"{node['type']} {numbers}".rstrip(), integer)


def _said(code: int) -> str:
    """A data type in a word, with its bits: "fixed8", "float32"."""
    kind, bits = divmod(code, BYTE)
    word = "fixed" if kind in FIXED_POINT else "float" if kind == FLOAT else "whole"
    return f"{word}{bits:x}"
