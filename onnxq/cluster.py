"""Run pieces of work on a Dask cluster; a piece whose worker dies runs again on another one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from onnxq.errors import UsageError

Piece = TypeVar("Piece")
Result = TypeVar("Result")

SECONDS = 10
"""How long to wait for the scheduler, and for its first worker."""

PIECES = 4
"""Pieces for each thread of the cluster: a dead worker costs few, and all end at about one time."""


class Cluster:
    """A connection to a scheduler."""

    def __init__(self, client: Any, address: str) -> None:
        self._client = client
        self._address = address

    @property
    def threads(self) -> int:
        """How many pieces of work can run at a time."""
        threads: dict[str, int] = self._client.nthreads()
        return max(1, sum(threads.values()))

    @property
    def pieces(self) -> int:
        """How many pieces to cut work into."""
        return PIECES * self.threads

    def map(
        self, work: Callable[[Piece], Result], pieces: Sequence[Piece]
    ) -> Iterator[tuple[int, Result]]:
        """Each piece's index and result, as they are done.

        Args:
            work: a function that the workers can import.

        Raises:
            UsageError: one piece killed several workers, or a worker lacks a package.
            Exception: what `work` raised.
        """
        from distributed import KilledWorker, as_completed

        futures = [self._client.submit(work, piece, pure=False) for piece in pieces]
        place = {future.key: index for index, future in enumerate(futures)}
        try:
            for future in as_completed(futures, loop=self._client.loop):
                yield place[future.key], future.result()
        except KilledWorker:
            raise UsageError(
                f"the same piece of work killed several workers of {self._address}",
                hint="perhaps for lack of memory: give the workers more, or use --batch-size 1",
            ) from None
        except ImportError as error:
            raise UsageError(
                f"a worker of {self._address} cannot run onnxq: {error}",
                hint="install the same onnxq there",
            ) from None
        finally:
            self._client.cancel(futures, force=True)


@contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """A connection for as long as the block lasts.

    Raises:
        UsageError: `distributed` is missing, nothing answers at the address, or it has no workers.
    """
    try:
        from distributed import Client
    except ImportError:
        raise UsageError(
            "--dask needs the package distributed", hint="pip install distributed"
        ) from None
    try:
        client = Client(address, timeout=SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"no Dask scheduler answers at {address}: {error}", hint="such as tcp://host:8786"
        ) from None
    try:
        try:
            client.wait_for_workers(1, timeout=SECONDS)
        except TimeoutError:
            raise UsageError(
                f"the Dask scheduler at {address} has no workers", hint="start dask worker"
            ) from None
        yield Cluster(client, address)
    finally:
        client.close()


def threads_of_task() -> int:
    """Threads a task may use on the worker that runs it: its share of the machine's cores."""
    from distributed import get_worker

    threads: int = get_worker().state.nthreads
    return max(1, (os.cpu_count() or 1) // threads)
