"""Shared by all tests: the hypothesis profile, and the sizes from which `gpu` takes layers."""

import numpy as np
import onnxq.targets.read as targets
import onnxruntime
import pytest
from hypothesis import HealthCheck, settings

from support.exact import CPU_SATURATES, ExactSessionOptions

settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("ci")

# What a model computes is to be tested, not what a CPU without VNNI makes of it.
usual_options = onnxruntime.SessionOptions
if CPU_SATURATES:
    onnxruntime.SessionOptions = ExactSessionOptions


# Models of tests are tiny, which `gpu` leaves in float: here it takes layers of every size, and so
# does what is based on it. Tests of the sizes themselves ask for the fixture `real_sizes`.
real_on_base = targets._on_base


def on_base_of_every_size(path, values):
    if path == targets._FOLDER / "gpu.toml":
        values = {key: each for key, each in values.items() if key != "sizes"}
    return real_on_base(path, values)


targets._on_base = on_base_of_every_size


@pytest.fixture
def real_sizes(monkeypatch):
    """The shipped targets with the sizes that they have."""
    monkeypatch.setattr(targets, "_on_base", real_on_base)
    targets._shipped.cache_clear()
    yield
    targets._shipped.cache_clear()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def own_kernels(monkeypatch):
    """ONNX Runtime as it is: where it replaces kernels it refuses some models."""
    monkeypatch.setattr(onnxruntime, "SessionOptions", usual_options)
