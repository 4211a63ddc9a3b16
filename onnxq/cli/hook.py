"""`onnxq-lint`: the rules of targets, for many files at once, as a pre-commit hook calls it."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from onnxq.cli.run import GATE_FAILED, State, answer, forgive_encodings

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Look at each file; float models have no rules to keep.

    Returns:
        0 where all keep them, 1 where one does not, else the code of the first that is refused.
    """
    forgive_encodings()
    paths = [Path(each) for each in (sys.argv[1:] if arguments is None else arguments)]
    codes = [answer(partial(_look, path), State()) for path in paths]
    return next((code for code in codes if code > GATE_FAILED), max(codes, default=0))


def _look(path: Path) -> int:
    from onnxq.commands.inspect import inspect
    from onnxq.model.files import load
    from onnxq.options.inspect import InspectOptions

    found = inspect(load(path), InspectOptions(lint=True))
    if not found.details.is_quantized:
        return 0
    for each in found.findings or ():
        print(f"{path}: {each.node}: {each.rule}: {each.detail}; {each.advice}")
    return GATE_FAILED if found.findings else 0
