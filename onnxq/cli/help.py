"""Help: options under headings, two examples at the end; plain in pipes, drawn on terminals."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import click

from onnxq.cli.examples import EXAMPLES
from onnxq.options.commands import COMMANDS
from onnxq.options.groups import GROUPS, OTHERS, group_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Grouped(click.Command):
    """A command whose help shows options under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, params in by_group(self.get_params(ctx)):
            rows = [row for each in params if (row := each.get_help_record(ctx)) is not None]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


def by_group(params: Sequence[click.Parameter]) -> list[tuple[str, list[click.Parameter]]]:
    """Heading → its options in their order; arguments, which help does not list, are nowhere."""
    found: dict[str, list[click.Parameter]] = defaultdict(list)
    for each in params:
        if each.param_type_name == "option":
            found[group_of(each.name or "")].append(each)
    return [(heading, found[heading]) for heading in (*GROUPS, OTHERS) if heading in found]


def command(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Make the command of this name, with its examples."""
    lines = ("Examples:", *(f"  {line}" for line in EXAMPLES[name]))
    if draws():
        return click.command(name, epilog="\n\n".join(lines))
    return click.command(name, cls=Grouped, epilog="\b\n" + "\n".join(lines))


def draws() -> bool:
    """Whether rich-click draws the help: it has put its own command in the place of click's."""
    return click.command.__module__.startswith("rich_click")


def drawn_groups() -> dict[str, list[Any]]:
    """The same headings as rich-click wants them: options by their flags, for every command."""
    from onnxq.cli.group import onnxq

    return {
        f"onnxq {name}": [
            {
                "name": heading,
                "options": [max(each.opts, key=len) for each in params]
                + ["--help"] * (heading == OTHERS),
            }
            for heading, params in by_group(made.params)
        ]
        for name in COMMANDS
        for made in [onnxq.get_command(click.Context(onnxq), name)]
        if made is not None
    }
