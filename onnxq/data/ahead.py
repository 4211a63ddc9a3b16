"""Work on items in threads before the results are asked for, in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST = 8
"""Threads that work side by side, at most."""

WORKERS = min(MOST, os.cpu_count() or 1)
"""Threads; Pillow, NumPy and ONNX Runtime let several run at once."""

AHEAD = 4
"""Items of each thread that are worked on before they are asked for, at most."""


def map_ahead(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int = WORKERS,
    ahead: int = AHEAD,
    threads: str = "onnxq",
) -> Iterator[Result]:
    """`map(work, items)`, in threads. Items are taken in the caller's thread.

    The first item whose work fails, in their order, raises; none is worked on afterwards. The work
    itself must not call this with as many `workers` of the same name: it would wait for its own
    thread.

    Args:
        threads: name of the threads.
    """
    pool = _pool(workers, threads)
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > ahead * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
        wait(pending)


@cache
def _pool(workers: int, name: str) -> ThreadPoolExecutor:
    """Kept, as layer after layer has work for it and starting threads takes a while."""
    return ThreadPoolExecutor(workers, name)


if hasattr(os, "register_at_fork"):
    # A forked process has none of the threads, and would wait for them for ever.
    os.register_at_fork(after_in_child=_pool.cache_clear)
