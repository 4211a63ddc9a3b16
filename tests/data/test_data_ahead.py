"""Threads that work ahead, and what becomes of them."""

import os
import subprocess
import sys

import pytest
from onnxq.data.ahead import map_ahead

FORK = """
import os, sys
from onnxq.data.ahead import map_ahead
expected = list(map_ahead(str, range(9), workers=2))
child = os.fork()
if child == 0:
    os._exit(0 if list(map_ahead(str, range(9), workers=2)) == expected else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_order(workers):
    assert list(map_ahead(lambda n: n * n, range(50), workers=workers)) == [
        n * n for n in range(50)
    ]


def test_the_first_failure_of_all_raises_and_the_threads_go_on():
    with pytest.raises(ZeroDivisionError):
        list(map_ahead(lambda n: 1 // (n - 3), range(9), workers=2))
    assert list(map_ahead(str, range(3), workers=2)) == ["0", "1", "2"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_has_threads_of_its_own():
    """A server that quantized once before it forked its workers would wait for ever in them."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], check=True, timeout=60)
