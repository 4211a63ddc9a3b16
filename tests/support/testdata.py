"""The shipped images as arrays, and a small network whose channels differ by exponents."""

from pathlib import Path

import numpy as np
from PIL import Image

from support.builder import Builder

TESTDATA = Path(__file__).parents[2] / "testdata"


def images(folder, step, *, labelled=False):
    """Every `step`-th image of `fashion-mnist/FOLDER`, as the shipped networks take them."""
    files = sorted((TESTDATA / "fashion-mnist" / folder).glob("*/*.png"))[::step]
    pixels = np.stack([np.asarray(Image.open(file), np.float32) for file in files])
    data = {"image": (pixels / 127.5 - 1)[:, None]}
    labels = np.array([int(file.parent.name.split("_")[0]) for file in files])
    return data | {"labels": labels} if labelled else data


def uneven():
    """Convolutions, a depthwise one among them, with a residual: 3×8×8 to 4×8×8."""
    b = Builder(3, spread=4)
    x = b.op("Relu", b.conv(b.input(3, 8, 8), 8, 3))
    y = b.op("Relu", b.conv(x, 8, 3, group=8))
    y = b.op("Relu", b.op("Add", b.conv(y, 8), x))
    return b.model(b.conv(b.op("Relu", b.conv(y, 16)), 4))
