"""`onnxq completion`: let the shell complete commands, options and their values."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxq.cli import options
from onnxq.cli.help import command
from onnxq.errors import OutputError, UsageError

if TYPE_CHECKING:
    from onnxq.cli.terminal import Terminal

FILES = {
    "bash": Path(".bashrc"),
    "zsh": Path(".zshrc"),
    "fish": Path(".config/fish/completions/onnxq.fish"),
}
"""Shell → the file in the home folder that it reads at its start."""

LINES = {
    "bash": 'eval "$(_ONNXQ_COMPLETE=bash_source onnxq)"',
    "zsh": 'eval "$(_ONNXQ_COMPLETE=zsh_source onnxq)"',
    "fish": "_ONNXQ_COMPLETE=fish_source onnxq | source",
}


@command("completion")
@click.argument("shell", required=False, metavar="[bash|zsh|fish]")
@click.option("--install", is_flag=True, help="Add the line to the file that the shell reads.")
@options.common
def completion(*, shell: str | None, install: bool, terminal: Terminal) -> None:
    """Let the shell complete commands, options and values.

    Prints the line that does it, for the shell named or the one in use.
    """
    name = shell or Path(os.environ.get("SHELL", "")).name
    if name not in LINES:
        found = f"there is no completion for the shell {name!r}" if name else "SHELL names no shell"
        raise UsageError(found, hint=f"name one: {', '.join(LINES)}")
    line, file = LINES[name], Path.home() / FILES[name]
    added = install and _add(line, file)
    if not install:
        terminal.line(line)
        terminal.note(f"put it into {file}, or let --install do so")
    else:
        terminal.line(f"{'added to' if added else 'already in'} {file}: it works in new shells")
    terminal.document(
        "completion", {"shell": name, "line": line, "file": file, "installed": install}
    )


def _add(line: str, file: Path) -> bool:
    """Add a line to a file; False where it has it."""
    try:
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        if line in text.splitlines():
            return False
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as stream:
            stream.write(("\n" if text and not text.endswith("\n") else "") + line + "\n")
    except OSError as error:
        raise OutputError(f"cannot write {file}: {error.strerror}") from None
    return True
