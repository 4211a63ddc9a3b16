"""The errors a user can meet, each with the exit code the command line answers with.

Every message says what is wrong and where; `hint` says what to do. Anything else that escapes is
a bug in onnxq (exit code 5).
"""

from __future__ import annotations

from typing import ClassVar


class OnnxqError(Exception):
    """Base of every error onnxq raises on purpose.

    Args:
        message: what is wrong and where, one line, no final period.
        hint: what the user can do about it.
    """

    exit_code: ClassVar[int] = 5

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(OnnxqError):
    """The request itself makes no sense: an unknown option value, a missing label, a bad regex."""

    exit_code = 2


class ModelError(OnnxqError):
    """The model was refused: not ONNX, corrupt, too new, or of a form onnxq cannot handle."""

    exit_code = 3


class DataError(OnnxqError):
    """The data were refused: missing, of the wrong shape or type, not finite, of another model."""

    exit_code = 4


class OutputError(OnnxqError):
    """The output cannot be written: no such folder, read-only, disk full."""

    exit_code = 2


class ProviderError(OnnxqError):
    """The execution provider asked for is not there or failed to start."""

    exit_code = 2


class ResourceError(OnnxqError):
    """There is not enough memory for what was asked, or no room for temporary files.

    Less of `memory` or a smaller `batch_size`, where the function has them, or smaller inputs need
    less; the command line names those of its options that do.
    """

    exit_code = 2
