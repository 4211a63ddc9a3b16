"""Fuzzing led by coverage: atheris changes a file until onnxq's code takes a new path.

    pip install atheris
    python benchmarks/robustness/guided.py KIND [-runs=20000 …libFuzzer's options]

KIND is one of those of fuzz.py ("model", "quantized model", "calibration", "npz", "png", "tar"),
whose valid files and command lines are used. A run ends at the first answer that is neither a
result nor a refusal in one line, and leaves the input as `crash-*`.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["onnxq"]):
    import onnxq.api
    import onnxq.cli  # noqa: F401

from fuzz import KINDS, Kind, answer, write_inputs


class UnfriendlyError(Exception):
    """An answer that no user should get."""


def main() -> None:
    kind = next(kind for kind in KINDS if kind.name == sys.argv[1])
    folder = Path(tempfile.mkdtemp(prefix="onnxq.guided."))
    inputs, corpus, case = folder / "in", folder / "corpus", folder / "case"
    for each in (inputs, corpus, case):
        each.mkdir()
    write_inputs(inputs)
    (corpus / "valid").write_bytes((inputs / kind.file).read_bytes())
    commands = itertools.cycle(kind.commands)
    atheris.Setup(
        [sys.argv[0], "-max_len=65536", "-rss_limit_mb=4096", *sys.argv[2:], str(corpus)],
        lambda content: check(inputs, case, kind, next(commands), content),
    )
    atheris.Fuzz()


def check(inputs: Path, folder: Path, kind: Kind, command: tuple[str, ...], content: bytes) -> None:
    """Raise where the command's answer to this file is neither a result nor a refusal."""
    found, detail = answer(inputs, folder, kind, command, content)
    if found not in {"right", "refused"}:
        raise UnfriendlyError(f"{command[0]}: {found}: {detail}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
