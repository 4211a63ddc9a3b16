"""The group `onnxq`: finds commands by name and imports only the one that is run."""

from __future__ import annotations

import importlib
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import click

from onnxq import __version__
from onnxq.cli.run import USAGE, State, answer, forgive_encodings
from onnxq.cli.signals import Ended, stoppable
from onnxq.errors import UsageError
from onnxq.options.commands import COMMANDS
from onnxq.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = "onnxq"


class CommandLine(click.Group):
    """A group whose commands are imported on use and whose errors become exit codes."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"onnxq.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command named; for an unknown one the error says which may be meant."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            hint = suggest(name.lower(), COMMANDS, of="the commands")
            raise UsageError(f"there is no command {name!r}", hint=hint)
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **settings: Any) -> Any:
        """Run and exit the process; the settings are click's."""
        state = State(json=wants_json(args[0] if args else settings.get("args")))
        settings |= {"prog_name": PROGRAM, "standalone_mode": False, "obj": state}
        forgive_encodings()
        with stoppable(state.stop):
            code = answer(lambda: super(CommandLine, self).main(*args, **settings), state)
        raise Ended(code) if state.stop.by else SystemExit(code)

    def invoke(self, ctx: click.Context) -> int:
        """Run the command; its errors end here, as click's `main` has its own answer to some."""
        return answer(lambda: super(CommandLine, self).invoke(ctx), ctx.obj)


def wants_json(arguments: Sequence[str] | None) -> bool:
    """Whether a document is wanted, on a command line that may be wrong."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return "--json" in given or "--format=json" in given or ("--format", "json") in pairwise(given)


@click.group(
    cls=CommandLine,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def onnxq(context: click.Context) -> None:
    """Turn float ONNX models into quantized ones that keep their accuracy.

    Calibrate, equalize, quantize and validate, without a training framework.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
        context.exit(USAGE)
