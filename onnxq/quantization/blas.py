"""How many threads numpy multiplies matrices with."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

from threadpoolctl import ThreadpoolController

MANY = 2048
"""Columns from which on one product is worth several threads."""


def blas_threads_for(columns: int) -> AbstractContextManager[object]:
    """Within the block products of matrices with so many columns are fast, and leave cores free.

    Threads of a product wait for the next one in a loop for milliseconds, which keeps the cores
    from everything else: small matrices are multiplied by one thread each. So their products have
    the same bits however many cores there are.
    """
    if columns >= MANY:
        return nullcontext()
    limit: AbstractContextManager[object] = _controller().limit(limits=1, user_api="blas")
    return limit


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    return ThreadpoolController()
