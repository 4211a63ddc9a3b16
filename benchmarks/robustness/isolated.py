"""Run cases one after the other in a child process that may crash, hang or eat memory."""

from __future__ import annotations

import multiprocessing
import os
import resource
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

MEMORY = 8 << 30
"""Bytes of address space a child may take; far more than any case needs."""

Work = Callable[[Any], Any]


class Lost(Exception):  # noqa: N818 - reads as what happened
    """The child is gone: `kind` is "hang" or "crash"."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind, self.detail = kind, detail


def isolated(
    work: Work, cases: Sequence[Any], *, seconds: float, memory: int = MEMORY
) -> Iterator[Any]:
    """The result of `work` for each case in turn, or the `Lost` that says how its process ended.

    Args:
        work: runs in a forked child, which goes on with the next case while it lives.
        seconds: time limit for one case.
    """
    child = None
    for case in cases:
        child = child or _Child(work, memory)
        try:
            yield child.ask(case, seconds)
        except Lost as lost:
            child.stop()
            child = None
            yield lost
    if child is not None:
        child.stop()


class _Child:
    def __init__(self, work: Work, memory: int) -> None:
        context = multiprocessing.get_context("fork")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(work, theirs, memory), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, case: Any, seconds: float) -> Any:
        self._ours.send(case)
        if not self._ours.poll(seconds):
            raise Lost("hang", f"no answer within {seconds:g} s")
        try:
            return self._ours.recv()
        except EOFError:
            self._process.join()
            raise Lost("crash", f"the process ended with {self._process.exitcode}") from None

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self._ours.close()


def _serve(work: Work, pipe: Connection, memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    while True:
        try:
            case = pipe.recv()
        except EOFError:
            return
        pipe.send(work(case))
