"""Metrics: of the task, with labels or without, and closeness to the float model's outputs."""

from onnxq.validation.metrics.builtin import CLOSENESS, METRICS
from onnxq.validation.metrics.load import (
    MetricLike,
    metric_named,
    metrics_named,
    once,
    takes_classes,
    takes_numbers,
)
from onnxq.validation.metrics.protocol import AnyMetric, Closeness, Metric, Task

__all__ = [
    "CLOSENESS",
    "METRICS",
    "AnyMetric",
    "Closeness",
    "Metric",
    "MetricLike",
    "Task",
    "metric_named",
    "metrics_named",
    "once",
    "takes_classes",
    "takes_numbers",
]
