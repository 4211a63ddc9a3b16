"""Where the time of a model goes: each operator's share, from ONNX Runtime's profiler."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from onnxq.errors import ModelError
from onnxq.model.model import Model
from onnxq.model.session import open_session, run

Feeds = Mapping[str, NDArray[Any]]

WARM, RUNS = 2, 8
"""Runs that are left out, and runs that are counted."""

_SUFFIX = "_kernel_time"


@dataclass(frozen=True)
class OperatorTime:
    """All nodes of one operator, as the runtime runs them: fused ones have names of its own.

    Attributes:
        nodes: how many there are.
        milliseconds: of a run, on the clock.
        share: of all nodes' time, %.
    """

    operator: str
    nodes: int
    milliseconds: float
    share: float


def profile(
    model: Model, feeds: Sequence[Feeds], *, provider: str = "cpu", threads: int = 1
) -> tuple[OperatorTime, ...]:
    """The operators of a model, the slowest first; each node counts with the median of its runs.

    Raises:
        ModelError: the model does not run, or ONNX Runtime wrote no profile.
    """
    with tempfile.TemporaryDirectory(prefix="onnxq.") as folder:
        session = open_session(
            model, provider=provider, threads=threads, yields=True, profile=Path(folder) / "times"
        )
        for number in range(WARM + RUNS):
            run(session, None, feeds[number % len(feeds)])
        written = session.end_profiling()
        try:
            events = json.loads(Path(written).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise ModelError("ONNX Runtime wrote no profile that can be read") from None
    return _by_operator(events)


def _by_operator(events: Sequence[Mapping[str, Any]]) -> tuple[OperatorTime, ...]:
    nodes: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_SUFFIX):
            told = event.get("args", {})
            operator = str(told.get("op_name", ""))
            nodes[name, str(told.get("node_index", "")), operator].append(float(event["dur"]))
    times: dict[str, list[float]] = defaultdict(list)
    for (_, _, operator), durations in nodes.items():
        times[operator].append(statistics.median(durations[WARM:] or durations) / 1e3)
    whole = sum(map(sum, times.values())) or 1.0
    found = [
        OperatorTime(operator, len(each), sum(each), 100 * sum(each) / whole)
        for operator, each in times.items()
    ]
    return tuple(sorted(found, key=lambda each: (-each.milliseconds, each.operator)))
