"""Write data as onnxq reads them into files that every tool is given; print where they are.

    python prepare.py MODEL DATA PREPROCESS TOKENIZER OUT

An empty PREPROCESS or TOKENIZER stands for none. Samples of one size become OUT.npz, one array per
model input, and `labels`; samples of several sizes a folder OUT of files of one sample each.
"""

import sys
from pathlib import Path

import numpy as np
import onnxq
from onnxq.data import Preprocessing, open_data

model, data, preprocess, tokenizer, output = sys.argv[1:]
source = open_data(
    data,
    onnxq.load(model).inputs,
    preprocessing=Preprocessing.parse(preprocess) if preprocess else None,
    tokenizer=Path(tokenizer) if tokenizer else None,
)
batches = list(source.batches(100))
if len({tuple(v.shape[1:] for v in batch.feeds.values()) for batch in batches}) == 1:
    arrays = {
        name: np.concatenate([batch.feeds[name] for batch in batches]) for name in batches[0].feeds
    }
    if source.has_labels:
        arrays["labels"] = np.concatenate([batch.labels for batch in batches])
    np.savez(f"{output}.npz", **arrays)
    print(f"{output}.npz")
else:
    Path(output).mkdir(parents=True, exist_ok=True)
    singles = [feeds for batch in batches for feeds in batch.feeds.singles()]
    for number, feeds in enumerate(singles):
        np.savez(Path(output) / f"{number:06}.npz", **feeds)
    print(output)
