"""Run a command; its times, its peak memory, and why it failed.

Imports the standard library alone: Linux counts the memory of the process that starts a child to
the child's peak, so the one that measures must stay small.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class Failed(Exception):  # noqa: N818 - reads as what happened
    """The command did not do its work; the message is the reason, one line.

    Attributes:
        code: its exit code, the negative signal that ended it, None where it ran too long or did
            not start.
    """

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True)
class Cost:
    """What a whole process took.

    Attributes:
        seconds: wall time.
        cpu_seconds: user and system time of all its threads; a busy machine hardly changes it.
        megabytes: its ru_maxrss, MB of 1,048,576 bytes.
        output: its stdout.
    """

    seconds: float
    cpu_seconds: float
    megabytes: float
    output: str


def run(
    command: Sequence[str],
    *,
    limit: float,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Cost:
    """Run the command in a folder for at most `limit` seconds.

    Raises `Failed` with the last line it wrote to stderr where it exits with another code than 0.
    """
    started = time.monotonic()
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                cwd=folder,
                env={**os.environ, **(environment or {})},
            )
        except OSError as error:
            raise Failed(f"cannot start {command[0]}: {error.strerror}") from error
        timer = threading.Timer(limit, process.kill)
        timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            timer.cancel()
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            if seconds >= limit:
                raise Failed(f"stopped after {limit:g} s")
            raise Failed(_reason(_text(errors), process.returncode), process.returncode)
        cpu = usage.ru_utime + usage.ru_stime
        return Cost(seconds, cpu, usage.ru_maxrss / 1024, _text(output))


def _text(file) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _reason(errors: str, code: int) -> str:
    """The line that says most: the last one that names an error, else the last one."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    named = [line for line in lines if line.split(":")[0].upper().endswith("ERROR")]
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return next(iter((named or lines)[-1:]), how)[:300]
