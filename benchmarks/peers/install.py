"""Each tool's own virtual environment, in a cache folder outside the repository."""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
from pathlib import Path

import process
from tools import Tool

LIMIT = 1800.0
"""Seconds for one `pip install`."""


def interpreter(tool: Tool, cache: Path) -> Path:
    """The Python that has the tool, installed first where it is not yet.

    Raises `process.Failed` where pip cannot install it.
    """
    folder = cache / "environments" / f"{tool.name}-{tool.version}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run may be installing it
        return _installed(tool, folder)


def _installed(tool: Tool, folder: Path) -> Path:
    python, done = folder / "bin" / "python", folder / "installed.json"
    wanted = json.dumps([sys.version.split()[0], tool.requirements])
    if done.is_file() and done.read_text() == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    print(f"installing {tool.name} {tool.version} in {folder}", file=sys.stderr, flush=True)
    try:
        process.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], limit=LIMIT)
        pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
        process.run([*pip, "install", *tool.requirements], limit=LIMIT)
    except process.Failed as failure:
        raise process.Failed(f"cannot be installed: {failure}") from failure
    done.write_text(wanted)
    return python
