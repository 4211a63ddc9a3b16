"""What a metric is: an object that sees batches and gives a number at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from numpy.typing import NDArray

from onnxq.closeness import Part

Array = NDArray[Any]
Values: TypeAlias = float | Mapping[str, float]
"""A metric's value, or several; the first one is what gates look at."""


class Metric(Protocol):
    """One model under one execution, over the whole set. Each of them gets a fresh instance.

    Optional attributes, looked up on an instance: `unit: str` ("" where there is none),
    `higher_is_better: bool` (true where there is none), `needs_labels: bool` (false). A built-in
    metric that also has `merge(other)` is computed on the workers of a cluster (`Mergeable`).
    """

    def update(
        self,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
        labels: Any | None,
        reference: Mapping[str, Array],
    ) -> None:
        """Take one batch.

        Args:
            inputs: by name; samples on the first axis.
            outputs: by name, those of the model that are compared; samples on the first axis
                where they have a batch axis.
            labels: what the data give for each sample, class indices (int64) or a list of any
                objects; None where they have none.
            reference: the float model's outputs.
        """
        ...

    def compute(self) -> Values:
        """The metric of all batches."""
        ...


@runtime_checkable
class Mergeable(Protocol):
    """A metric that adds up."""

    def merge(self, other: Any) -> None:
        """Add what another instance saw of later batches."""
        ...


@dataclass(frozen=True)
class Task:
    """A metric of the task, by name: it sees all outputs and, where there are any, labels.

    Attributes:
        name: what its column is called.
        given: how the user named it.
        create: makes a fresh instance.
        of_user: whether it is the user's, not one of those built in.
        drop_in_percent: whether a drop is told in % of 1, as that of `Closeness` is.
    """

    name: str
    given: str
    create: Callable[[], Metric]
    unit: str = ""
    higher_is_better: bool = True
    needs_labels: bool = False
    of_user: bool = False
    drop_in_percent: bool = False

    @property
    def drop_unit(self) -> str:
        """The unit of `drop`."""
        return "%" if self.drop_in_percent else self.unit

    def drop(self, float_value: float, value: float) -> float:
        """How far a quantized model fell below the float one."""
        drop = float_value - value if self.higher_is_better else value - float_value
        return 100 * drop if self.drop_in_percent else drop

    def reaches(self, value: float, limit: float) -> bool:
        """Whether the value is as good as the limit."""
        return value >= limit if self.higher_is_better else value <= limit


@dataclass(frozen=True)
class Closeness:
    """A metric of the comparison of outputs with the float model's: the worst part counts.

    Attributes:
        of: a part of the outputs → the metric.
        loss: the metric → how far the outputs are off; what counts as a drop.
        of_loss: the other way round.
        drop_unit: its unit.
        error_of: a part of the outputs → standard error of the metric; None where it has none.
    """

    name: str
    of: Callable[[Part], float]
    loss: Callable[[float], float]
    of_loss: Callable[[float], float]
    unit: str = ""
    drop_unit: str = "%"
    needs_labels: bool = False
    error_of: Callable[[Part], float] | None = None

    def drop(self, _: float, value: float) -> float:
        """How far the outputs are off."""
        return self.loss(value)

    def reaches(self, value: float, limit: float) -> bool:
        """Whether the value is as good as the limit."""
        return value >= limit


AnyMetric: TypeAlias = Task | Closeness
