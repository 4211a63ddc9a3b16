"""Files of the user's: what they define is found, whatever they import; what fails is said."""

import sys

import pytest
from onnxq.python_files import load_callable
from onnxq.refusal import Refusal

DATACLASS = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass
class Share:
    limit: float = 0.5

    def compute(self) -> float:
        return 2 * self.limit
"""


def write(folder, text):
    path = folder / "mine.py"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_function_is_that_of_the_file(tmp_path):
    assert load_callable(write(tmp_path, "def twice(x): return 2 * x"), "twice")(4) == 8


def test_each_call_reads_the_file_anew(tmp_path):
    load_callable(write(tmp_path, "def value(): return 1"), "value")
    assert load_callable(write(tmp_path, "def value():  return 22"), "value")() == 22


def test_a_dataclass_may_name_its_types_as_text(tmp_path):
    """`dataclass` looks them up in the module of that name."""
    assert load_callable(write(tmp_path, DATACLASS), "Share")().compute() == 1


@pytest.mark.parametrize(
    ("text", "name", "reason"),
    [
        ("1 / 0", "f", "failed: ZeroDivisionError: division by zero"),
        ("def f(:", "f", "failed: SyntaxError"),
        ("import sys; sys.exit(3)", "f", "failed: SystemExit: 3"),
        ("f = 3", "f", "has no function 'f'"),
        ("def g(): pass", "f", "has no function 'f'"),
    ],
)
def test_what_is_wrong_is_said_with_the_files_name(tmp_path, text, name, reason):
    path = write(tmp_path, text)
    found = load_callable(path, name)
    assert isinstance(found, Refusal)
    assert str(path) in found.reason
    assert reason in found.reason


def test_a_file_that_fails_leaves_no_module_behind(tmp_path):
    path = write(tmp_path, "1 / 0").rename(tmp_path / "fails_at_once.py")
    load_callable(path, "f")
    assert not [name for name in sys.modules if "fails_at_once" in name]


def test_a_file_that_is_not_there(tmp_path):
    assert load_callable(tmp_path / "none.py", "f") == Refusal(
        f"there is no file {tmp_path / 'none.py'}"
    )
