"""Data sources: samples that fit a model, from files, folders, arrays or a random generator."""

from onnxq.data.open import open_data
from onnxq.data.preprocess import Preprocessing
from onnxq.data.source import Batch, DataSource

__all__ = ["Batch", "DataSource", "Preprocessing", "open_data"]
