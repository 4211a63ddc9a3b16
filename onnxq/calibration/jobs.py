"""Calibrate in several processes on one machine: each runs a shard, the parts are merged."""

from __future__ import annotations

import multiprocessing
import signal
import tempfile
import threading
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any

from onnxq.calibration.checkpoint import Checkpoint
from onnxq.calibration.merge import merge
from onnxq.calibration.statistics import Calibration
from onnxq.calibration.stream import Request, calibrate, with_largest
from onnxq.data.budget import GROUP
from onnxq.data.source import DataSource
from onnxq.errors import DataError, UsageError
from onnxq.model import external
from onnxq.model.files import read_written
from onnxq.progress import SILENT, Advance, Progress
from onnxq.records import remove_temporaries_beside

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from onnxq.model.model import Model

POLL = 0.2
"""Seconds between two looks at how far the processes are."""


@dataclass(frozen=True)
class Job:
    """What one process does.

    Attributes:
        model: file of the normalized model.
        checkpoint: None where no state is kept.
    """

    model: Path
    source: DataSource
    request: Request
    checkpoint: Checkpoint | None


def split(request: Request, jobs: int) -> list[Request]:
    """The request as `jobs` requests whose parts make up the whole."""
    index, count = request.shard
    return [replace(request, shard=(index + count * job, count * jobs)) for job in range(jobs)]


def join(parts: Sequence[Calibration], shard: tuple[int, int]) -> Calibration:
    """The parts of one shard as that shard, with the bits of one process."""
    return replace(merge(parts), shards=(shard,))


def calibrate_in_processes(
    model: Model,
    source: DataSource,
    request: Request,
    jobs: int,
    *,
    checkpoint: Checkpoint | None = None,
    progress: Progress = SILENT,
) -> Calibration:
    """`stream.calibrate` in `jobs` processes, with the same result.

    Each process gets its share of the threads and of the memory, and a state file of its own.

    Raises:
        DataError: as `calibrate`.
        UsageError: a process was killed, most likely for lack of memory.
    """
    requests = split(_share(with_largest(request, model, source), jobs), jobs)
    # The parts are cheap to start only once the fingerprint is known.
    _ = source.fingerprint
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    states = [_state(checkpoint, each) for each in requests]
    others = set(multiprocessing.active_children())
    with (
        # After an error the other processes may still be writing there.
        tempfile.TemporaryDirectory(prefix="onnxq.", ignore_cleanup_errors=True) as folder,
        ProcessPoolExecutor(jobs, context, _start, (queue, folder)) as pool,
    ):
        try:
            path = Path(folder) / "model.onnx"
            external.write(model.proto, path)
            work = [Job(path, source, *each) for each in zip(requests, states, strict=True)]
            with _uninterrupted():
                futures = [pool.submit(_run, job) for job in work]
            with progress.track("calibrate", source.count) as advance:
                _follow(futures, queue, advance)
            parts = [part for future in futures if (part := future.result()) is not None]
        except KeyboardInterrupt:
            # The pool would wait for them.
            ended = set(multiprocessing.active_children()) - others
            for process in ended:
                process.terminate()
            for process in ended:
                process.join()
            _remove_half_states(states)
            # Its thread, if it is still there at the interpreter's exit, may meet closed pipes.
            pool.shutdown(cancel_futures=True)
            raise
        except BrokenProcessPool:
            raise UsageError(
                "a process of the calibration was killed, perhaps for lack of memory",
                hint="use fewer --jobs or a smaller --memory; --resume goes on where it stopped",
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    if not parts:
        raise DataError(f"{source.spec}: no samples in shard {request.shard[0]}/{request.shard[1]}")
    return join(parts, request.shard)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Signals that come in the block are heard after it; processes started in it never hear Ctrl-C.

    Half started, a process is in no list of those to be ended, and complains. Ctrl-C a terminal
    sends to them too, and each would say so where it stands, at first in the middle of its imports.
    """
    came: list[int] = []
    usual: dict[int, Any] = {}
    # Only the main thread is interrupted, and only it may say by what.
    if threading.current_thread() is threading.main_thread():
        handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
        usual = {number: each for number, each in handlers.items() if callable(each)}
    for number in usual:
        signal.signal(number, lambda number, _: came.append(number))
    mask = _block_interrupts()
    try:
        yield
    finally:
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in usual.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


def _block_interrupts() -> set[signal.Signals] | None:
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        return None
    return signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # type: ignore[return-value]


def _share(request: Request, jobs: int) -> Request:
    limits = replace(request.limits, memory=max(1, request.limits.budget // jobs))
    return replace(request, limits=limits, runtime=request.runtime.share(jobs))


def _state(checkpoint: Checkpoint | None, request: Request) -> Checkpoint | None:
    if checkpoint is None:
        return None
    name = f"{checkpoint.path.name}.{request.shard[0]}-{request.shard[1]}"
    return replace(checkpoint, path=checkpoint.path.with_name(name))


def _remove_half_states(states: Sequence[Checkpoint | None]) -> None:
    """What ended processes were about to write."""
    for state in states:
        if state is not None:
            remove_temporaries_beside(state.path)


def _follow(futures: Sequence[Future[Any]], queue: Any, advance: Advance) -> None:
    """Show progress until all processes are done or one fails."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, POLL, FIRST_EXCEPTION)
        while True:
            try:
                advance(queue.get_nowait())
            except Empty:
                break
        for future in done:
            future.result()


class _Reports:
    """Progress that another process shows."""

    @contextmanager
    def track(self, _label: str, _total: int | None) -> Iterator[Advance]:
        yield _queue.put


_queue: Any = None


def _start(queue: Any, folder: str) -> None:
    """What a process sets once: where it reports, and where its temporary files lie.

    They lie in its parent's folder, which goes however this process ends: it may be killed.
    """
    global _queue  # noqa: PLW0603 - a process's own
    _queue = queue
    tempfile.tempdir = folder


def _run(job: Job) -> Calibration | None:
    """One process's part; None where there are fewer batches than processes."""
    request = job.request
    if not has_batches(job.source, request):
        return None
    model = read_written(job.model)
    return calibrate(model, job.source, request, checkpoint=job.checkpoint, progress=_Reports())


def has_batches(source: DataSource, request: Request) -> bool:
    """Whether the shard is not empty: there may be fewer batches than shards."""
    index, count = request.shard
    first = next(iter(source.batches(GROUP, first=index - 1, step=count)), None)
    return first is not None
