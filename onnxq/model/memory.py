"""How much memory there is, and how much of it activations may take."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

SHARE = 4
"""Activations take one part in so many of what is free, where the caller does not say."""

MOST = 1 << 30
"""Bytes that activations take at most then; the process itself comes on top."""

PROC = Path("/proc")
CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


def default_budget() -> int:
    """Bytes that activations may take at a time: a quarter of what is free, `MOST` at most."""
    free = free_memory()
    return MOST if free is None else max(1, min(MOST, free // SHARE))


def free_memory() -> int | None:
    """Bytes this process can still take: on the machine, in its container, under its `ulimit -v`.

    None where the system does not tell.
    """
    found = [_available(), _left_in_container(), _left_of_address_space()]
    known = [each for each in found if each is not None]
    return max(0, min(known)) if known else None


def hand_back() -> None:
    """Give the system what was freed: glibc keeps large blocks, in case threads ask for others."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _available() -> int | None:
    try:
        for line in (PROC / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _left_in_container() -> int | None:
    for limit, used in CGROUPS:
        try:
            return int(limit.read_text()) - int(used.read_text())
        except (OSError, ValueError):  # "max": there is no limit
            continue
    return None


def _left_of_address_space() -> int | None:
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit == resource.RLIM_INFINITY:
            return None
        pages = int((PROC / "self" / "statm").read_text().split()[0])
        return limit - pages * resource.getpagesize()
    except (ImportError, OSError, ValueError):
        return None
