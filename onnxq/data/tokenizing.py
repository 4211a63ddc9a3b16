"""From a text to what a model of tokens is fed, by the tokenizer.json that belongs to the model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxq.data.checks import convert
from onnxq.data.extras import require
from onnxq.data.masks import USUAL as MASK
from onnxq.errors import DataError, UsageError

if TYPE_CHECKING:
    from onnxq.data.batching import Sample
    from onnxq.model.model import TensorSpec

EXTRA = "text"

IDS = "input_ids"
KNOWN = (IDS, MASK, "token_type_ids", "position_ids")
"""Inputs that a tokenizer can fill."""


@dataclass(frozen=True)
class Tokenization:
    """What was done to the texts, as a record has it.

    Attributes:
        digest: SHA-256 of the tokenizer's file.
    """

    digest: str

    def __str__(self) -> str:
        return f"tokenizer={self.digest[:16]}"


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A tokenizer, for the inputs of one model.

    Attributes:
        content: of its tokenizer.json.
        length: tokens that the model takes, to which texts are cut or padded; None for any.
    """

    content: bytes
    inputs: tuple[TensorSpec, ...]
    length: int | None

    @property
    def record(self) -> Tokenization:
        return Tokenization(hashlib.sha256(self.content).hexdigest())

    @cached_property
    def _opened(self) -> tuple[Any, int]:
        """The tokenizer, and the id that it pads with."""
        found = require("tokenizers", EXTRA).Tokenizer.from_buffer(self.content)
        pad = (found.padding or {}).get("pad_id", 0)
        # A text has its own length, whatever the file says of batches.
        found.no_padding()
        if self.length is not None:
            found.enable_truncation(self.length)
        return found, pad

    def __getstate__(self) -> dict[str, Any]:
        """For other processes: without what they open themselves."""
        return {"content": self.content, "inputs": self.inputs, "length": self.length}

    def sample(self, text: str, name: str) -> Sample:
        """What the model is fed for a text: arrays of one axis, without that of the samples.

        Raises:
            DataError: no token is left of the text.
        """
        opened, pad = self._opened
        encoded = opened.encode(text)
        if not encoded.ids:
            raise DataError(f"{name}: the tokenizer makes no token of {text!r:.60}")
        count = len(encoded.ids)
        columns: dict[str, Sequence[int]] = {
            IDS: encoded.ids, MASK: encoded.attention_mask,
            "token_type_ids": encoded.type_ids, "position_ids": range(count),
        }  # fmt: skip
        more = max((self.length or 0) - count, 0)
        padding: dict[str, Sequence[int]] = {
            IDS: [pad] * more, MASK: [0] * more, "token_type_ids": [0] * more,
            "position_ids": range(count, count + more),
        }  # fmt: skip
        arrays = {name: np.array([*columns[name], *padding[name]], np.int64) for name in KNOWN}
        return {spec.name: convert(arrays[spec.name], spec, name) for spec in self.inputs}


def open_tokenizer(path: Path | None, spec: str, inputs: Sequence[TensorSpec]) -> Tokenizer:
    """The tokenizer a user named for texts.

    Args:
        path: its tokenizer.json; None where none was named.
        spec: the texts, as the user named them.
        inputs: of the model.

    Raises:
        UsageError: no tokenizer, no such file, none that can be read, or no package to read it.
        DataError: the model has inputs that a tokenizer does not fill.
    """
    if path is None:
        raise UsageError(
            f"{spec} holds texts, and nothing says how they become numbers",
            hint="give the model's tokenizer.json with --tokenizer",
        )
    library = require("tokenizers", EXTRA)
    unknown = [item.name for item in inputs if item.name not in KNOWN]
    if unknown or IDS not in {item.name for item in inputs}:
        what = f"input {unknown[0]!r}" if unknown else f"no input {IDS!r}"
        raise DataError(
            f"{spec}: the model has {what}; a tokenizer fills {', '.join(KNOWN)}",
            hint="feed it by a function: --data FILE.py:function",
        )
    for item in inputs:
        if item.shape is not None and len(item.shape) != 2:
            raise DataError(f"{spec}: input {item.name!r} is not samples × tokens, as texts are")
    try:
        content = path.read_bytes()
        library.Tokenizer.from_buffer(content)
    except OSError as error:
        raise UsageError(f"cannot read the tokenizer {path}: {error.strerror}") from error
    except Exception as error:  # the package raises plain exceptions
        raise UsageError(
            f"{path} is no tokenizer.json: {error}",
            hint="a fast tokenizer of Hugging Face's saves one with save_pretrained",
        ) from error
    return Tokenizer(content, tuple(inputs), _length(inputs))


def _length(inputs: Sequence[TensorSpec]) -> int | None:
    """The tokens that the model takes, where it fixes that."""
    sides = [item.shape[1] for item in inputs if item.shape is not None]
    return next((side for side in sides if isinstance(side, int)), None)
