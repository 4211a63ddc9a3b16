"""Where the channels lie, for inputs that declare no size of them: running the model tells."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from onnxq.data.image_input import LAYOUTS_BY_AXES, sample_shape
from onnxq.errors import ModelError
from onnxq.model.session import open_session, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxq.data.preprocess import Layout, Preprocessing
    from onnxq.model.model import Model, TensorSpec

USUAL = (224, 224)
"""Height and width to try where the preprocessing leaves them open."""


def layout_by_run(
    preprocessing: Preprocessing, inputs: Sequence[TensorSpec], model: Model
) -> Preprocessing:
    """The preprocessing with the only layout that the model runs with.

    As it is where it says the layout, the declared shape tells it, or running does not.
    """
    (spec, *others) = inputs
    if others or preprocessing.layout is not None or spec.shape is None or len(spec.shape) != 4:
        return preprocessing
    if any(isinstance(size, int) for size in (spec.shape[-3], spec.shape[-1])):
        return preprocessing
    session = open_session(model)
    count = spec.shape[0] if isinstance(spec.shape[0], int) else 1
    fitting: list[Layout] = []
    for layout in LAYOUTS_BY_AXES[4]:
        shape = sample_shape(replace(preprocessing, layout=layout), preprocessing.size or USUAL)
        try:
            run(session, None, {spec.name: np.zeros((count, *shape), spec.dtype)})
        except ModelError:
            continue
        fitting.append(layout)
    return replace(preprocessing, layout=fitting[0]) if len(fitting) == 1 else preprocessing
