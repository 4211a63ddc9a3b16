"""What quantizing one model in several ways has in common, kept from one time to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from onnxq.calibration import files
from onnxq.calibration.statistics import Calibration
from onnxq.model.model import Model

Value = TypeVar("Value")


class Kept(Protocol):
    """What was found out about a model and its data; one for each pair of them."""

    def calibration(self, form: Model, make: Callable[[], Calibration]) -> Calibration:
        """Of a normalized form of the model; made where there is none yet."""
        ...

    def value(self, what: str, of: tuple[Any, ...], make: Callable[[], Value]) -> Value:
        """What depends on nothing but `of`: models, and what `json` can write."""
        ...


class Nothing:
    """Nothing is kept: who quantizes once needs nothing twice."""

    def calibration(self, form: Model, make: Callable[[], Calibration]) -> Calibration:  # noqa: ARG002
        return make()

    def value(self, what: str, of: tuple[Any, ...], make: Callable[[], Value]) -> Value:  # noqa: ARG002
        return make()


NOTHING: Kept = Nothing()


class Sent:
    """On a worker of a cluster: the calibrations that came with the task, and nothing else."""

    def __init__(self, calibrations: Mapping[str, bytes]) -> None:
        self._calibrations = calibrations

    def calibration(self, form: Model, make: Callable[[], Calibration]) -> Calibration:
        content = self._calibrations.get(form.fingerprint)
        return make() if content is None else files.from_bytes(content, Path("sent"))

    def value(self, what: str, of: tuple[Any, ...], make: Callable[[], Value]) -> Value:  # noqa: ARG002
        return make()
