"""What the metrics of tasks share: their protocol, the choice of an output, checks of labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxq.errors import UsageError
from onnxq.suggest import suggest

Array = NDArray[Any]
Arrays = Mapping[str, Array]
"""Inputs or outputs of one batch by name; the first axis counts the samples."""

Labels: TypeAlias = Sequence[Any] | Array
"""One object a sample; or the data's class indices, an array, which are no truth of these tasks."""

T = TypeVar("T")


class TaskMetric(Protocol):
    """A number, or several, that a whole set of samples gives.

    Attributes:
        unit: of the numbers: "%" or "".
        higher_is_better: which way is worse.
        needs_labels: whether the float model's outputs cannot stand in for the truth.
    """

    unit: ClassVar[str]
    higher_is_better: ClassVar[bool]
    needs_labels: ClassVar[bool]

    def update(
        self, inputs: Arrays, outputs: Arrays, labels: Labels | None, reference: Arrays
    ) -> None:
        """Add a batch: what the model was fed and gave, the truth, the float model's outputs."""
        ...

    def compute(self) -> dict[str, float]:
        """The results by name; the first is the one to judge by."""
        ...

    def merge(self, other: Any) -> None:
        """Add what another instance with the same options saw of later batches."""
        ...


def samples_in(inputs: Arrays) -> int:
    """How many samples a batch holds."""
    return len(next(iter(inputs.values())))


def chosen_output(
    outputs: Arrays, name: str, fits: Callable[[Array], bool], metric: str, wanted: str
) -> str:
    """The output called `name`, or without a name the first one that fits.

    Raises:
        UsageError: there is no such output, or none fits.
    """
    if name:
        if name not in outputs:
            raise UsageError(
                f"{metric}: the model has no output {name!r}",
                hint=suggest(name, outputs, of="its outputs"),
            )
        return name
    for each, array in outputs.items():
        if fits(array):
            return each
    raise UsageError(
        f"{metric} takes {wanted}, which no output is: {shapes(outputs)}",
        hint=f"name one with {metric}:output=NAME",
    )


def shapes(outputs: Arrays) -> str:
    """Outputs as people are told of them."""
    return ", ".join(
        f"{name} {array.dtype} {'×'.join(map(str, array.shape))}" for name, array in outputs.items()
    )


def checked_labels(labels: Labels | None, kind: type[T], metric: str, what: str) -> list[T] | None:
    """The labels of a batch; None where there are none but the data's class indices, an array.

    Raises:
        UsageError: they are of another kind, or some are missing.
    """
    if labels is None or isinstance(labels, np.ndarray) or all(each is None for each in labels):
        return None
    for label in labels:
        if not isinstance(label, kind):
            raise UsageError(
                f"{metric} compares with {what}, the labels are {type(label).__name__}",
                hint="give such labels with --labels FILE, or none to compare with the float model",
            )
    return list(labels)


def is_float(array: Array) -> bool:
    return np.issubdtype(array.dtype, np.floating)
