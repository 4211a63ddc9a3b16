"""The layouts in which detectors put out boxes, scores and classes: a table.

A layout is recognized by the shapes, names and values of the float model's outputs; a quantized
model's are then read in the same way, however wrong they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.refusal import Refusal
from onnxq.validation.tasks import grids, queries
from onnxq.validation.tasks.boxes import Candidates
from onnxq.validation.tasks.common import shapes
from onnxq.validation.tasks.grids import Size

Array = NDArray[Any]
Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Decoder:
    """A layout of outputs.

    Attributes:
        names: what users call it.
        layout: the outputs, for people.
        roles: names of the outputs that hold the parts, None where shapes forbid the layout.
        fits: whether the values of these parts, for that size of input, look like it.
        decode: these parts of a batch as boxes, in the units they are in.
        overlapping: non-maximum suppression is still to be done.
        relative: boxes are shares of the input's size, or pixels; None where both occur.
    """

    names: tuple[str, ...]
    layout: str
    roles: Callable[[Arrays, Size], tuple[str, ...] | None]
    fits: Callable[[tuple[Array, ...], Size], bool]
    decode: Callable[[tuple[Array, ...], Size], Candidates]
    overlapping: bool = True
    relative: bool | None = None


DECODERS = (
    Decoder(
        ("tensorflow",),
        "as `ssd`, the boxes called `detection_boxes`: y1, x1, y2, x2",
        queries.tensorflow_roles,
        queries.fits_ssd,
        queries.tensorflow,
        overlapping=False,
    ),
    Decoder(
        ("ssd", "torchvision"),
        "boxes N×K×4, scores N×K, classes N×K, perhaps counts N; for one picture without N",
        queries.ssd_roles,
        queries.fits_ssd,
        queries.ssd,
        overlapping=False,
    ),
    Decoder(
        ("detr",),
        "logits N×Q×(C + 1), the last for no object; boxes N×Q×4 by center",
        queries.query_roles,
        queries.fits_detr,
        queries.detr,
        overlapping=False,
        relative=True,
    ),
    Decoder(
        ("rtdetr",),
        "logits N×Q×C, boxes N×Q×4 by center",
        queries.query_roles,
        queries.fits_rtdetr,
        queries.rtdetr,
        overlapping=False,
        relative=True,
    ),
    Decoder(
        ("end-to-end", "yolo26", "yolov10"),
        "N×K×6: x1, y1, x2, y2, score, class",
        grids.table_roles,
        grids.fits_end_to_end,
        grids.end_to_end,
        overlapping=False,
    ),
    Decoder(
        ("query-table",),
        "N×Q×(4 + C), boxes by center as shares, probabilities",
        grids.table_roles,
        queries.fits_query_table,
        queries.query_table,
        overlapping=False,
        relative=True,
    ),
    Decoder(
        ("yolox",),
        "N×A×(5 + C), offsets in cells and logarithms of sizes",
        grids.yolox_roles,
        grids.fits_yolox,
        grids.yolox,
        relative=False,
    ),
    Decoder(
        ("yolov5", "yolov6", "yolov7"),
        "N×A×(5 + C), boxes by center, objectness, classes",
        grids.table_roles,
        grids.fits_yolov5,
        grids.yolov5,
    ),
    Decoder(
        ("yolov8", "yolov9", "yolo11"),
        "N×(4 + C)×A, boxes by center, classes",
        grids.table_roles,
        grids.fits_yolov8,
        grids.yolov8,
    ),
)
"""What `map` reads, in the order in which it looks for them."""

DECODER_NAMES = tuple(name for decoder in DECODERS for name in decoder.names)


@dataclass(frozen=True)
class Reading:
    """How one model's outputs are read: a layout, and the outputs that hold its parts."""

    decoder: Decoder
    roles: tuple[str, ...]
    size: Size

    def candidates(self, outputs: Arrays) -> Candidates:
        """The boxes of a batch; what is not finite stays so."""
        with np.errstate(invalid="ignore", over="ignore"):
            return self.decoder.decode(tuple(outputs[name] for name in self.roles), self.size)


def recognized(outputs: Arrays, size: Size, name: str = "auto") -> Reading | Refusal:
    """How to read outputs like the float model's.

    Args:
        size: (height, width) of the model's input.
        name: of a decoder, or "auto" for the first whose layout the outputs look like.
    """
    for decoder in DECODERS:
        if name not in {"auto", *decoder.names}:
            continue
        roles = decoder.roles(outputs, size)
        if roles is None:
            continue
        parts = tuple(outputs[each] for each in roles)
        if name != "auto" or decoder.fits(parts, size):
            return Reading(decoder, roles, size)
    if name == "auto":
        return Refusal(f"no layout of detections is known that looks like {shapes(outputs)}")
    return Refusal(f"the outputs cannot be read as {name}: {shapes(outputs)}")
