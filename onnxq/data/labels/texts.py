"""Texts as truth: what is written in a picture or said in a recording."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from onnxq.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NAME_KEYS = ("file_name", "file", "image", "audio", "audio_filepath", "path", "id")
TEXT_KEYS = ("text", "sentence", "transcription", "label")
"""How data sets call the two in .jsonl, the usual first."""


def read_texts(path: Path) -> dict[str, str] | list[str]:
    """Texts by file name, or in the samples' order where the file has no names.

    `.jsonl`: a line is an object with a text and perhaps a file name. Else a line is
    `name<TAB>text`, or a text.

    Raises:
        DataError: a line has no text, or a name comes twice.
    """
    lines = _lines(path)
    if path.suffix.lower() == ".jsonl":
        pairs = [_json_line(line, f"{path}:{n}") for n, line in enumerate(lines, 1) if line.strip()]
    else:
        pairs = [_tab_line(line) for line in lines]
    return _collected(pairs, path)


def read_characters(path: Path) -> tuple[str, ...]:
    """The characters of a model in its order: one a line, a space being one too.

    Or JSON: a list, or an object of character and index as Hugging Face's vocab.json.

    Raises:
        DataError: the file cannot be read, or its indices leave gaps.
    """
    lines = _lines(path)
    if path.suffix.lower() != ".json":
        return tuple(lines)
    try:
        content = json.loads("\n".join(lines))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {error}") from error
    if isinstance(content, dict):
        found = content.items()
        places = {index: text for text, index in found if isinstance(index, (int, float))}
        content = [places.get(index) for index in range(len(content))]
    if not isinstance(content, list) or not all(isinstance(each, str) for each in content):
        raise DataError(
            f"{path} holds no characters", hint="a list, or an object of character and index"
        )
    return tuple(content)


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    lines = [line.removesuffix("\r") for line in lines]
    return lines if lines[-1] else lines[:-1]


def _tab_line(line: str) -> tuple[str | None, str]:
    name, separator, text = line.partition("\t")
    return (name, text) if separator else (None, line)


def _json_line(line: str, where: str) -> tuple[str | None, str]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON: {error}") from error
    fields = entry if isinstance(entry, dict) else {}
    texts = [fields[key] for key in TEXT_KEYS if isinstance(fields.get(key), str)]
    if not texts:
        raise DataError(f"{where} has no text", hint=f"call it one of {', '.join(TEXT_KEYS)}")
    names = [fields[key] for key in NAME_KEYS if isinstance(fields.get(key), str)]
    return (names[0] if names else None), texts[0]


def _collected(pairs: Sequence[tuple[str | None, str]], path: Path) -> dict[str, str] | list[str]:
    named = {name: text for name, text in pairs if name is not None}
    if not named:
        return [text for _, text in pairs]
    unnamed = sum(name is None for name, _ in pairs)
    if unnamed:
        raise DataError(
            f"{path}: {len(pairs) - unnamed} lines name a file, {unnamed} do not",
            hint="a line is a file name, a tab and the text, or in all lines the text alone",
        )
    if len(named) < len(pairs):
        names = [name for name, _ in pairs if name is not None]
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path}: {twice!r} comes twice")
    return named
