"""Decode samples in threads before they are asked for, in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Raw = TypeVar("Raw")
Decoded = TypeVar("Decoded")

WORKERS = min(8, os.cpu_count() or 1)
"""Threads; Pillow and NumPy let several run at once."""

AHEAD = 4 * WORKERS
"""Samples decoded before they are asked for, at most."""


def map_ahead(decode: Callable[[Raw], Decoded], items: Iterable[Raw]) -> Iterator[Decoded]:
    """`map(decode, items)`, decoded in threads. Items are taken in the caller's thread."""
    with ThreadPoolExecutor(WORKERS, "decode") as pool:
        pending: deque[Future[Decoded]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(decode, item))
                if len(pending) > AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
