"""Truth beside the data: boxes, masks, texts and numbers, each matched to its sample."""

from onnxq.data.labels.boxes import Boxes
from onnxq.data.labels.match import Label, LabelFile, SampleLabels
from onnxq.data.labels.open import open_labels
from onnxq.data.labels.texts import read_characters

__all__ = ["Boxes", "Label", "LabelFile", "SampleLabels", "open_labels", "read_characters"]
