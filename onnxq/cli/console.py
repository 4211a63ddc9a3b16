"""What rich draws: tables, and bars with the time left. Imported where something is drawn."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn, TextIO

from rich import box
from rich import console as rich_console
from rich.cells import cell_len
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table as RichTable
from rich.text import Text

from onnxq.cli.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnxq.progress import Advance
    from onnxq.report.table import Table

PIPE_WIDTH = 100
"""Columns where there is no terminal to ask; a table whose names are longer gets wider."""


class Console(rich_console.Console):
    """A console for text as it is, without markup."""

    def __init__(self, stream: TextIO) -> None:
        width = None if stream.isatty() else PIPE_WIDTH
        super().__init__(file=stream, width=width, highlight=False, markup=False, emoji=False)

    def on_broken_pipe(self) -> NoReturn:
        """Leave it to the command line: rich would exit with 1, which means a failed gate."""
        raise BrokenPipeError


def draw(content: Table, stream: TextIO) -> None:
    """Draw a table; a terminal breaks long names into lines, a file keeps them whole for grep."""
    console = Console(stream)
    fold = stream.isatty()
    unlimited = console.options.update(width=1 << 20)
    drawn = _drawn(content, fold=fold, narrow=False)
    natural = console.measure(drawn, options=unlimited).maximum
    if not fold:
        console.width = max(PIPE_WIDTH, natural)
    elif natural > console.width:
        drawn = _drawn(content, fold=True, narrow=True)
    if content.title:
        console.print()
        console.print(Text(content.title, style="bold"))
    console.print(drawn)


def _drawn(content: Table, *, fold: bool, narrow: bool) -> RichTable:
    """The table; a narrow one breaks headers of numbers, so that names and reasons get the room."""
    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, column in enumerate(content.columns):
        cells = max((_widest(row[number]) for row in content.rows), default=0)
        width = max([cells, *map(cell_len, column.header.split())])
        drawn.add_column(
            Text(column.header),
            justify="right" if column.numeric else "left",
            no_wrap=not fold or (column.numeric and not narrow),
            overflow="fold",
            width=width if narrow and column.numeric else None,
        )
    for row in content.rows:
        drawn.add_row(*(Text(printable(cell)) for cell in row))
    return drawn


def _widest(cell: str) -> int:
    return max((cell_len(line) for line in printable(cell).splitlines()), default=0)


class _Steps(MofNCompleteColumn):
    """Steps done, such as 12/24, or the seconds so far of work whose length is unknown."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text(f"{task.elapsed or 0:.0f} s", style="progress.elapsed")
        return super().render(task)


LASTING = 2
"""Depth of nested work down to which a bar stays when its work is done."""


class ProgressBar:
    """Implements `onnxq.progress.Progress` on a terminal; nested work has a bar of its own."""

    def __init__(self, stream: TextIO) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            _Steps(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=Console(stream),
        )
        self._depth = 0

    @contextmanager
    def track(self, label: str, total: int | None) -> Iterator[Advance]:
        if self._depth == 0:
            self._bars.start()
        self._depth += 1
        task = self._bars.add_task(label, total=total)
        try:
            yield lambda steps: self._bars.advance(task, steps)
        finally:
            if total is None or self._depth > LASTING:
                self._bars.remove_task(task)
            self._depth -= 1
            if self._depth == 0:
                self._bars.stop()
