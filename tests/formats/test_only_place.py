"""No number format is named outside onnxq/formats/: not its name, its limits, nor its numpy type."""

import ast
from pathlib import Path

import pytest
from onnxq.formats.table import FORMATS, Uniform

PACKAGE = Path(__file__).parents[2] / "onnxq"
FILES = sorted(
    path for path in PACKAGE.rglob("*.py") if "formats" not in path.relative_to(PACKAGE).parts
)
NARROW = [row for row in FORMATS.values() if isinstance(row.grid, Uniform) and row.bits <= 16]
NUMBERS = {127, 255} | {1 << row.bits for row in NARROW if row.bits == 16}
NAMES = {row.name for row in NARROW}

ELSEWHERE = {
    # Pixels are 8-bit numbers whatever becomes of them.
    "data/preprocess.py": {255, "uint8"},
    "data/settings.py": {255, "uint8"},
    "data/configurations.py": {255},
    "data/decode.py": {255, "uint8"},
    "data/resample.py": {255, "uint8"},
    "validation/tasks/segmentation.py": {255},
    # Raw bytes of a tensor, and the words of a bfloat16.
    "model/elements.py": {"uint8"},
    "model/constants.py": {"uint8"},
    "model/external.py": {"uint8"},
    "model/rewrite.py": {"uint8"},
    "model/session.py": {"uint16"},
    "report/html/samples.py": {255, "uint8"},
    # The word that says of a head: as all else.
    "options/quantize.py": {"int8", "INT8"},
    # Signs are drawn as bytes.
    "gradients/signs.py": {"int8"},
    "calibration/costs.py": {"uint16"},
    # The exponent's bias of a float32; codes of bins are 16-bit words.
    "calibration/bins.py": {127, "uint16"},
    "calibration/accumulate.py": {"uint16"},
    "calibration/compiled.py": {"uint16"},
    "calibration/count.py": {"uint16"},
    "calibration/kernels.py": {"uint16"},
    # A key of records that 0.1 wrote.
    "quantization/details.py": {"int8_sqnr_db"},
    # Names of CPU features.
    "cli/machine.py": {"amx_int8"},
}
"""File → what looks like a format there and is none."""


def found(path):
    """What names a format in a file's code: docstrings and comments aside."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {
        id(node.value) for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in docstrings:
            value = node.value
            if type(value) in {int, float} and value in NUMBERS:
                yield int(value)
            words = value.replace("_", " ").split() if isinstance(value, str) else ()
            if NAMES & set(words):
                yield value
        elif isinstance(node, ast.Attribute) and node.attr in NAMES:
            yield node.attr
        elif isinstance(node, ast.Name) and NAMES & set(node.id.lower().split("_")):
            yield node.id


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_formats_are_named_in_their_package_alone(path):
    allowed = ELSEWHERE.get(str(path.relative_to(PACKAGE)), set())
    assert [each for each in found(path) if each not in allowed] == []


def test_the_check_finds_what_it_looks_for(tmp_path):
    path = tmp_path / "some.py"
    path.write_text('import numpy as np\nx = np.int8\ny = 127.0\nz = "in int8"\nint8_model = 1\n')
    assert sorted(map(str, found(path))) == ["127", "in int8", "int8", "int8_model"]
