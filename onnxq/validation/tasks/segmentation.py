"""`miou`: masks of classes, against labelled masks or the float model's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from onnxq.data.labels.match import OUTSIDE, nearest
from onnxq.errors import UsageError
from onnxq.validation.tasks.common import (
    Array,
    Arrays,
    Labels,
    checked_labels,
    chosen_output,
    is_float,
)

Counts = NDArray[np.int64]

MOST_CLASSES = 5000
"""Larger indices are no classes; the largest sets of labels have about 1,200."""


@dataclass
class MeanIoU:
    """Mean intersection over union of classes, percent, over the pixels of all samples.

    The mean is over the classes that occur in the truth or in a prediction. Of a mask with one
    channel, foreground or not, only the foreground counts: the background is most of the picture.

    Everingham et al., The PASCAL visual object classes challenge, 2015, 4.4.

    Attributes:
        output: which output; the first with three or four axes where empty.
        ignore: pixels with this index in the truth are left out; 255 in Pascal VOC and Cityscapes.
        threshold: probability from which a pixel of a one-channel mask is foreground.
    """

    output: str = ""
    ignore: int = 255
    threshold: float = 0.5

    unit: ClassVar[str] = "%"
    higher_is_better: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False

    _binary: bool = field(default=False, init=False, repr=False)
    _limit: float | None = field(default=None, init=False, repr=False)
    _confusion: Counts = field(
        default_factory=lambda: np.zeros((0, 0), np.int64), init=False, repr=False
    )

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise UsageError(f"miou: threshold is {self.threshold}", hint="it is between 0 and 1")

    def update(
        self,
        inputs: Arrays,  # noqa: ARG002 - every metric is given them
        outputs: Arrays,
        labels: Labels | None,
        reference: Arrays,
    ) -> None:
        """Add a batch.

        Args:
            labels: masks height×width of class indices, resized to the outputs' size where they
                have another; or None.

        Raises:
            UsageError: no output is a mask, or the two masks differ in size.
        """
        name = chosen_output(reference, self.output, _is_mask, "miou", "a mask or class scores")
        exact = self._class_indices(reference[name], reference[name])
        found = self._class_indices(outputs[name], reference[name])
        if exact.shape != found.shape:
            raise UsageError(
                f"miou: output {name!r} is {found.shape}, the float model's is {exact.shape}"
            )
        truth = checked_labels(labels, np.ndarray, "miou", "masks")
        if truth is None:
            self._add(exact, found)
            return
        for mask, prediction in zip(truth, found, strict=True):
            self._add(nearest(self._checked(mask), prediction.shape), prediction)

    def compute(self) -> dict[str, float]:
        """The mean IoU, and the share of pixels of the right class.

        Raises:
            UsageError: the truth has no pixel that counts, or of a one-channel mask no foreground.
        """
        confusion = self._confusion
        objects = confusion[1:] if self._binary else confusion
        if not objects.sum():
            raise UsageError(
                "miou: the truth has no pixel of a class",
                hint="look at the masks, or without labels at --preprocess",
            )
        right = confusion.diagonal()
        union = confusion.sum(axis=0) + confusion.sum(axis=1) - right
        occurs = union > 0
        if self._binary:
            occurs[0] = False
        return {
            "mIoU": float(100 * (right[occurs] / union[occurs]).mean()),
            "pixel accuracy": float(100 * right.sum() / confusion.sum()),
        }

    def merge(self, other: MeanIoU) -> None:
        """Add what another instance saw of later batches."""
        self._binary |= other._binary
        self._count(other._confusion)

    def _add(self, truth: Array, found: Array) -> None:
        """Count pairs of classes, truth down and prediction across."""
        counted = (truth != self.ignore) & (truth != OUTSIDE)
        truth, found = truth[counted], found[counted]
        if not truth.size:
            return
        if min(truth.min(), found.min()) < 0:
            raise UsageError("miou: class indices begin with 0, there are negative ones")
        size = int(max(truth.max(), found.max())) + 1
        if size > MOST_CLASSES:
            raise UsageError(
                f"miou: there is a class index {size - 1}",
                hint="masks hold one class index a pixel",
            )
        pairs = np.bincount(truth * size + found, minlength=size * size)
        self._count(pairs.reshape(size, size))

    def _count(self, pairs: Counts) -> None:
        size = max(len(self._confusion), len(pairs))
        total = np.zeros((size, size), np.int64)
        for counts in (self._confusion, pairs):
            total[: len(counts), : len(counts)] += counts
        self._confusion = total

    def _checked(self, mask: Array) -> Array:
        """A labelled mask; whatever is not 0 is the foreground of a one-channel mask."""
        if mask.ndim != 2 or mask.dtype.kind not in "iub":
            raise UsageError(
                f"miou: a label is {mask.dtype} of shape {mask.shape}",
                hint="a mask is height×width of integers, a class index a pixel",
            )
        mask = mask.astype(np.int64)
        if self._binary:
            return np.where((mask == self.ignore) | (mask == OUTSIDE), mask, mask > 0)
        return mask

    def _class_indices(self, array: Array, exact: Array) -> Array:
        """Samples×height×width: the best class of each pixel."""
        if not is_float(exact):
            return _without_channel(array).astype(np.int64)
        axis = _class_axis(exact)
        if axis is not None:
            return np.asarray(array.argmax(axis=axis))
        if self._limit is None:
            # Probabilities, or logits, of which the sigmoid would be taken.
            probable = exact.min(initial=0) >= 0 and exact.max(initial=0) <= 1
            odds = float(np.log(self.threshold / (1 - self.threshold)))
            self._limit = self.threshold if probable else odds
            self._binary = True
        return (_without_channel(array) > self._limit).astype(np.int64)


def _is_mask(array: Array) -> bool:
    return array.ndim == 4 or (array.ndim == 3 and not is_float(array))


def _class_axis(array: Array) -> int | None:
    """Where the classes are, of samples×classes×height×width or with the classes last.

    None for one channel, and for samples×height×width: foreground or not.
    """
    if array.ndim < 4:
        return None
    axis = 1 if array.shape[1] <= array.shape[3] else 3
    return axis if array.shape[axis] > 1 else None


def _without_channel(array: Array) -> Array:
    """Samples×height×width of samples×1×height×width, or with the one channel last."""
    if array.ndim == 3:
        return array
    return array[:, 0] if array.shape[1] == 1 else array[..., 0]
