"""The metrics of tasks: boxes, masks, texts and embeddings, against labels or the float model.

Each is a class with `update`, once a batch, and `compute`; an instance measures one model.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from onnxq.validation.tasks.common import TaskMetric
from onnxq.validation.tasks.detection import MeanAveragePrecision
from onnxq.validation.tasks.embedding import EmbeddingCosine, PairSpearman
from onnxq.validation.tasks.segmentation import MeanIoU
from onnxq.validation.tasks.text import CharacterErrorRate, WordErrorRate

TASK_METRICS: Mapping[str, type[TaskMetric]] = MappingProxyType(
    {
        "map": MeanAveragePrecision,
        "miou": MeanIoU,
        "cer": CharacterErrorRate,
        "wer": WordErrorRate,
        "spearman": PairSpearman,
        "cosine": EmbeddingCosine,
    }
)
"""By the names that `--metric` takes."""

__all__ = [
    "TASK_METRICS",
    "CharacterErrorRate",
    "EmbeddingCosine",
    "MeanAveragePrecision",
    "MeanIoU",
    "PairSpearman",
    "TaskMetric",
    "WordErrorRate",
]
