"""What code of the user's prints is no part of a result."""

from support.cli_case import run

CODE = """
import numpy as np

print("loaded")

def samples():
    print("called")
    for row in np.load(r"{data}")["x"]:
        yield {{"x": row}}

def metric(y, _):
    print("measured")
    return y[:, 0]
"""


def test_functions_that_print_leave_the_document_alone(case):
    code = case.folder / "code.py"
    code.write_text(CODE.format(data=case.data), encoding="utf-8")
    done = run("validate", case.model, case.model, "--data", f"{code}:samples", "--metric",
               f"{code}:metric", "--json")  # fmt: skip
    assert done.json["schema"] == "onnxq/validate"
    assert all(each in done.err for each in ("loaded", "called", "measured"))
    table = run("calibrate", case.model, "--data", f"{code}:samples", "--format", "csv")
    assert table.out.startswith("Optimized Layer Name,")
    assert "called" in table.err
