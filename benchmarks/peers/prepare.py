"""Write data as onnxq reads them into the .npz that every tool is given.

    python prepare.py MODEL DATA PREPROCESS OUT.npz

An empty PREPROCESS feeds the data as they are. One array per model input, and `labels`.
"""

import sys

import numpy as np
import onnxq
from onnxq.data import Preprocessing, open_data

model, data, preprocess, output = sys.argv[1:]
source = open_data(
    data,
    onnxq.load(model).inputs,
    preprocessing=Preprocessing.parse(preprocess) if preprocess else None,
)
batches = list(source.batches(100))
arrays = {
    name: np.concatenate([batch.feeds[name] for batch in batches]) for name in batches[0].feeds
}
if source.has_labels:
    arrays["labels"] = np.concatenate([batch.labels for batch in batches])
np.savez(output, **arrays)
