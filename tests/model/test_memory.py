"""The budget is made of what is free."""

import subprocess
import sys

import pytest
from onnxq.model.memory import MOST, SHARE, default_budget, free_memory

LIMITED = """
import resource
from onnxq.model.memory import default_budget, free_memory
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
print(free_memory(), default_budget())
"""


def test_a_quarter_of_what_is_free():
    free = free_memory()
    if free is None:
        pytest.skip("this system does not tell")
    assert 0 < default_budget() <= MOST
    assert default_budget() <= free_memory() // SHARE + (1 << 28)


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited there")
def test_a_limit_of_address_space_counts():
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], check=True, capture_output=True, text=True
    )
    free, budget = map(int, done.stdout.split())
    assert 1 << 30 < free < 2 << 30
    assert budget <= free // SHARE
