"""Shared by all tests: hypothesis profiles. ONNXQ_GRAPHS sets the number of random graphs."""

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("ci")

DEFAULT_GRAPHS = 150
GRAPHS = int(os.environ.get("ONNXQ_GRAPHS", DEFAULT_GRAPHS))
"""150 by default, 500 in CI; `ONNXQ_GRAPHS=20000 pytest tests/equalization/test_random_graphs.py`
is the slow run."""


@pytest.fixture
def rng():
    import numpy as np

    return np.random.default_rng(0)
