"""Ctrl-C, and SIGTERM from schedulers: a command ends, and what is temporary with it."""

from __future__ import annotations

import _thread
import atexit
import os
import re
import signal
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

STOPS: dict[int, tuple[str, Any]] = {
    signal.SIGINT: ("interrupted", signal.default_int_handler),
    signal.SIGTERM: ("terminated", signal.SIG_DFL),
}
"""Signal that stops a command → what is said, and Python's own handler. The code is 128 more."""

GRACE = 3.0
"""Seconds that a stopped command has to end, before it is stopped again."""


FRAGILE = re.compile(r"<frozen importlib|.*[/\\](numba|llvmlite)[/\\]|.*[/\\]tempfile\.py$")
"""Files whose code does harm where an exception leaves it anywhere: a compiled module whose imports
fail and the compiler, which frees what it handed over a second time, crash the process; a folder
that is made and not remembered yet, or half removed, stays.
"""


class Stopped(KeyboardInterrupt):
    """A signal came. A class of its own: where the plain one leaves an `exec`, of which imports
    are full, the interpreter ends itself by SIGINT at its exit, whatever the exit code.
    """


class Ended(SystemExit):
    """A signal ended the command: its threads may never end."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


@dataclass
class Stop:
    """Whether and how a command was stopped.

    Attributes:
        by: the signal; 0 where none came. Code in between may turn `Stopped` into an error of its
            own: numpy does while it is imported.
        since: when it came, by the monotonic clock.
        again: it came where Python drops exceptions, as in callbacks of C code, or at a bad time.
        over: nothing is left to be stopped.
    """

    by: int = 0
    since: float = 0.0
    again: bool = False
    over: bool = False

    def answer(self, number: int, frame: FrameType | None) -> None:
        """The handler of signals: what is temporary is removed on the way out."""
        if not self.by:
            self.by, self.since = number, time.monotonic()
            # Not a `threading.Thread`: what runs now may hold the locks that one takes.
            _thread.start_new_thread(self._insist, ())
        if _fragile(frame) and time.monotonic() - self.since < GRACE:
            self.again = True
            return
        raise Stopped

    def _insist(self) -> None:
        """Stop it again where that was of no use.

        The exception may be dropped, or come between taking a lock and remembering it, so that
        the way out waits for a thread that waits for the lock.
        """
        last = self.since
        while not self.over:
            time.sleep(0.05)
            if self.again or time.monotonic() - last > GRACE:
                self.again, last = False, time.monotonic()
                _signal_main_thread(self.by)


def _fragile(frame: FrameType | None) -> bool:
    """Whether a module is being imported, a function compiled, a folder made or removed."""
    while frame is not None:
        if FRAGILE.match(frame.f_code.co_filename):
            return True
        frame = frame.f_back
    return False


@contextmanager
def stoppable(stop: Stop) -> Iterator[None]:
    """The signals of `STOPS` stop what runs in the block, and are noted in `stop`.

    Not where a signal is ignored, as in the background of a script, nor in a thread of a program.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = [number for number, (_, usual) in STOPS.items() if signal.getsignal(number) is usual]
    usual_hook = sys.unraisablehook

    def drop(ignored: sys.UnraisableHookArgs) -> None:
        if issubclass(ignored.exc_type, Stopped):
            stop.again = True
        else:
            usual_hook(ignored)

    for number in ours:
        signal.signal(number, stop.answer)
    sys.unraisablehook = drop
    try:
        yield
    finally:
        stop.over = True
        sys.unraisablehook = usual_hook
        for number in ours:
            signal.signal(number, STOPS[number][1])


def leave(exit_code: int) -> NoReturn:
    """Exit, even where a thread that waits for ever would keep the process."""
    threads_ended, overdue = threading.Event(), threading.Event()
    atexit.register(threads_ended.set)
    # Both now: from Python 3.12 on none starts once the interpreter is on its way out.
    _thread.start_new_thread(_clean, (overdue,))
    _thread.start_new_thread(_end, (threads_ended, overdue, exit_code))
    sys.exit(exit_code)


def _clean(overdue: threading.Event) -> None:
    """Do what the main thread would do if it came to that: temporary folders are removed."""
    overdue.wait()
    atexit._run_exitfuncs()  # noqa: SLF001


def _end(threads_ended: threading.Event, overdue: threading.Event, exit_code: int) -> None:
    """End the process if it is still there after a while."""
    if not threads_ended.wait(GRACE):
        overdue.set()
    time.sleep(GRACE)
    os._exit(exit_code)


def _signal_main_thread(number: int) -> None:
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:  # Windows
        _thread.interrupt_main(signal.Signals(number))
