"""What a command answers: exit codes, and errors as one line on stderr.

0 done · 1 a gate failed · 2 usage · 3 the model was refused · 4 the data was refused ·
5 a bug in onnxq · 130 interrupted · 141 the reader of the output went away · 143 terminated.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import sys
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from onnxq.cli.signals import STOPS, Stop
from onnxq.cli.text import printable
from onnxq.errors import OnnxqError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable

GATE_FAILED = 1
USAGE = 2
BUG = 5
BROKEN_PIPE = 141

OF_THE_FILE = {
    errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EROFS,
    errno.EIO, errno.ESTALE,
}  # fmt: skip
"""What is wrong with a file that cannot even be looked for, such as in a folder of others'."""


@dataclass
class State:
    """What the error handler must know of the command that ran.

    Attributes:
        json: stdout holds one JSON document, of the error where there is one.
    """

    verbose: bool = False
    json: bool = False
    stop: Stop = field(default_factory=Stop)


@dataclass(frozen=True)
class Problem:
    """Why a command did not do what it was asked for.

    Attributes:
        kind: "usage", "model", "data", "output", "provider", "resource", "bug", or "stopped".
        message: what is wrong and where.
        hint: what to do; "" where that is not known.
    """

    kind: str
    message: str
    hint: str
    exit_code: int

    def __str__(self) -> str:
        said = f"{self.message} ({self.hint})" if self.hint else self.message
        return said if self.kind == STOPPED else f"error: {said}"


STOPPED = "stopped"


def answer(invoke: Callable[[], Any], state: State) -> int:
    """The exit code of `invoke`, whose errors are said on stderr.

    Args:
        invoke: runs a command; its result is the exit code, None for 0.
        state: filled in while the command line is parsed.
    """
    try:
        code = invoke()
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        code = done.exit_code
    except (KeyboardInterrupt, click.Abort):
        code = _say(_stopped(state.stop.by or signal.SIGINT), state)
    except BrokenPipeError:
        _drop_stdout()
        code = BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - the last resort: no traceback reaches a user
        code = _say(_stopped(state.stop.by) if state.stop.by else _problem(error, state), state)
    return code if isinstance(code, int) else 0


def _stopped(number: int) -> Problem:
    return Problem(STOPPED, STOPS[number][0], "", 128 + number)


def _problem(error: Exception, state: State) -> Problem:
    if isinstance(error, OnnxqError):
        kind = type(error).__name__.removesuffix("Error").lower()
        return Problem(kind, error.message, error.hint, error.exit_code)
    if isinstance(error, click.ClickException):
        return _usage(error)
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        _drop_stdout()
        where = f"for {error.filename}" if error.filename else "for the output"
        return Problem("output", f"no space left {where}", "the disk is full: make room", USAGE)
    if isinstance(error, OSError) and error.errno in OF_THE_FILE and error.filename:
        return Problem("usage", f"cannot use {error.filename}: {error.strerror}", "", USAGE)
    if isinstance(error, MemoryError):
        return Problem("resource", "there is not enough memory", "", ResourceError.exit_code)
    if state.verbose:
        sys.stderr.write("".join(traceback.format_exception(error)))
    what = "the traceback above" if state.verbose else "what --verbose shows"
    return Problem(
        "bug",
        f"a bug in onnxq: {type(error).__name__}: {error}",
        f"please report it, with the command and {what}",
        BUG,
    )


def _usage(error: click.ClickException) -> Problem:
    message = error.format_message().rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f"{context.command_path} --help shows the options" if context else ""
    return Problem("usage", message, hint, USAGE)


def _say(problem: Problem, state: State) -> int:
    """Write one line, whatever the message was made of, and its document where one is wanted."""
    try:
        if state.json:
            from onnxq.records import to_json

            sys.stdout.write(to_json("error", dataclasses.asdict(problem)) + "\n")
            sys.stdout.flush()
        sys.stderr.write(printable(" ".join(str(problem).split())) + "\n")
        sys.stderr.flush()
    except BrokenPipeError:
        return BROKEN_PIPE
    return problem.exit_code


def _drop_stdout() -> None:
    """Send what is still buffered nowhere, else the interpreter complains at its exit."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return


def forgive_encodings() -> None:
    """Print "?" where a terminal's encoding lacks "×", instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
