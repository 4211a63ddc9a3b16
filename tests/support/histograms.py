"""Histograms as calibration makes them, of values at hand."""

import numpy as np
from onnxq.calibration import ranges
from onnxq.calibration.accumulate import Accumulator


def statistics_of(values):
    accumulator = Accumulator(None)
    accumulator.add(np.asarray(values, np.float32))
    return accumulator.finish()


def distribution_of(values):
    return ranges.distribution([(statistics_of(values), None)])
