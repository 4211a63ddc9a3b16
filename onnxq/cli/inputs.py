"""The files that a command line names: its result may not take the place of one of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

RECIPE = "onnxq.recipe"
"""Where the context keeps the file that options were taken from."""

RESULTS = ("output", "junit")
"""Parameters that name what is written."""

_PARTS = re.compile(r"[:,]")
"""Ends a file's name within a value, as in data.py:samples or preprocess.json,crop=96."""

_OWN_ENDINGS = (".onnx", ".calib", ".npz", ".html", ".xml")
"""What results are called: no data of a model's are."""


def check_output(output: Path | None) -> None:
    """Fail before the long work where its result has no place, or would destroy an input.

    Raises:
        OutputError: it has none, or is a file that the command line names, one that such a model
            keeps its weights in, or one of a folder of data.
    """
    if output is None:
        return
    from onnxq.model.files import require_distinct, require_writable

    require_writable(output)
    require_distinct(output, *(each for each in _inputs(output) if not each.is_dir()))


def _inputs(output: Path) -> Iterator[Path]:
    context = click.get_current_context()
    values = [value for name, value in context.params.items() if name not in RESULTS]
    for path in _paths([*values, context.meta.get(RECIPE)]):
        yield path
        if path.is_dir():
            yield from _of_folder(path, output)
        elif output.suffix.lower() not in _OWN_ENDINGS and output.is_file() and path.is_file():
            from onnxq.model.external_files import data_files

            yield from data_files(path)


def _paths(value: object) -> Iterator[Path]:
    """What a value may name: all of it, and what comes before a colon or a comma."""
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from _paths(each)
    elif isinstance(value, (str, Path)):
        text = str(value)
        ends = [found.start() for found in _PARTS.finditer(text)]
        names = [text[:end] for end in (*ends, len(text))]
        yield from (Path(name) for name in names if name and _there(Path(name)))


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _of_folder(folder: Path, output: Path) -> Iterator[Path]:
    """The output itself where it is one of the samples that a folder holds."""
    from onnxq.data.folders import EXTENSIONS

    samples = {*EXTENSIONS, ".npz", ".pb", ".txt"}
    if output.suffix.lower() in samples and folder.resolve() in output.resolve().parents:
        yield output
