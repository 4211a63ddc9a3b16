"""Options that several commands share, so that they read and mean the same everywhere."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click
from click.shell_completion import CompletionItem

from onnxq.cli.inputs import RECIPE
from onnxq.cli.terminal import Terminal
from onnxq.errors import OnnxqError, ResourceError
from onnxq.options.fields import REQUIRED, Option, Options, options_of
from onnxq.options.kinds import Choice, Flag, Kind, Several
from onnxq.options.shared import Provided
from onnxq.options.values import File, NameOrFile, TextOr

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Chosen = TypeVar("Chosen", bound=Provided)


class Decorator(Protocol):
    """What adds an option to a command and keeps its type."""

    def __call__(self, function: Decorated, /) -> Decorated: ...


FILE = click.Path(path_type=Path)
"""A path whose file the library opens: it says better than click what is wrong with it."""


def common(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`, `-v` and `-q`, and hand the command its `terminal`."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
    @click.option("-v", "--verbose", is_flag=True, help="Say more: whole tables, tracebacks.")
    @click.option("-q", "--quiet", is_flag=True, help="No notes and no progress.")
    @functools.wraps(function)
    def wrapper(*, as_json: bool, verbose: bool, quiet: bool, **options: Any) -> Any:
        if verbose and quiet:
            raise click.UsageError("--verbose and --quiet exclude each other")
        context = click.get_current_context()
        context.find_root().obj.verbose = verbose
        terminal = Terminal(as_json, verbose, quiet)
        try:
            with terminal.alive(context.info_name or ""):
                return function(terminal=terminal, **options)
        except (MemoryError, ResourceError) as error:
            raise _short_of_memory(error) from None
        except (click.ClickException, OnnxqError, OSError):
            raise
        except Exception as error:
            raise _at_fault(options.values()) or error from error

    return wrapper


def _short_of_memory(error: MemoryError | ResourceError) -> ResourceError:
    """The error, with those options of the command that help."""
    if isinstance(error, ResourceError) and error.hint:
        return error
    options = {option.name for option in click.get_current_context().command.params}
    lower = [f"--{name.replace('_', '-')}" for name in SAVING if name in options]
    ways = [f"lower {' or '.join(lower)}"] * bool(lower) + ["give smaller inputs"]
    what = error.message if isinstance(error, ResourceError) else "there is not enough memory"
    return ResourceError(what, hint=", or ".join(ways))


SAVING = ("memory", "batch_size")
"""Options a lower value of which needs less memory."""


def _at_fault(values: Iterable[object]) -> OnnxqError | None:
    """The refusal of a model among a command's arguments; None where all are valid: a bug."""
    from onnxq.model.session import refusal_of

    given = (each for value in values for each in (value if isinstance(value, tuple) else [value]))
    models = [each for each in given if isinstance(each, Path) and each.suffix == ".onnx"]
    refusals = (refusal_of(path) for path in models if path.is_file())
    return next((each for each in refusals if each is not None), None)


def model_argument(name: str = "model", metavar: str = "MODEL") -> Decorator:
    return click.argument(name, type=FILE, metavar=metavar)


def output_option(
    what: str, metavar: str, *, required: bool = True, default: str = ""
) -> Decorator:
    """Where a result goes; `default` says in words where without the option."""
    told = f"Write {what} here." + (f"  [default: {default}]" if default else "")
    return click.option("-o", "--output", type=FILE, required=required, metavar=metavar, help=told)


# --- from option values ----------------------------------------------------------------------


class Checked(click.ParamType):  # type: ignore[type-arg]  # 8.1 has no argument
    """Values of an option's kind, which says what is wrong with others."""

    def __init__(self, kind: Kind) -> None:
        self.name = kind.wanted
        self._kind = kind

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,
        ctx: click.Context | None,  # noqa: ARG002
    ) -> Any:
        """The value in its one form; a wrong one is a `UsageError` that begins with the flag."""
        name = max(param.opts, key=len) if param else "the value"
        found = self._kind.read(value) if isinstance(value, str) else value
        return self._kind.accept(found, name)

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """The words that begin so; else a file, where that may be one."""
        kind = self._kind
        words = kind.values if isinstance(kind, (Choice, NameOrFile)) else ()
        found = [CompletionItem(word) for word in words if word.startswith(incomplete)]
        if not found and isinstance(kind, (File, NameOrFile, TextOr)):
            return [CompletionItem(incomplete, type="file")]
        return found


def add(name: str, option: Option) -> Decorator:
    """Add one option, which the command gets as `name`."""
    kind, long_name = option.kind, option.long_name(name)
    known = option.default is not None and option.default is not REQUIRED
    default = kind.write(option.default) if known else None
    shown = bool(default) or (isinstance(kind, Flag) and kind.negatable)
    if isinstance(kind, Flag):
        both = f"{long_name}/--no-{long_name.lstrip('-')}" if kind.negatable else long_name
        return click.option(
            name, both, is_flag=True, default=default, show_default=shown, help=option.help
        )
    each = kind.each if isinstance(kind, Several) else kind
    choices = f"[{'|'.join(each.values)}]" if isinstance(each, Choice) else None
    return click.option(
        name,
        long_name,
        type=Checked(each),
        multiple=isinstance(kind, Several),
        default=default,
        show_default=shown,
        required=option.default is REQUIRED,
        metavar=option.metavar or choices,
        help=option.help,
    )


def of(options: type[Options]) -> Decorator:
    """Add the options of a command, which gets them, checked, as `chosen`.

    Everything in the command knows the libraries of custom operators among them.
    """
    known = {name: each for name, each in options_of(options).items() if each.flag is not None}

    def decorate(function: Decorated) -> Decorated:
        @functools.wraps(function)
        def wrapper(**values: Any) -> Any:
            given = {name: values.pop(name) for name in known}
            chosen = options.of({n: v for n, v in given.items() if v is not None and v != ()})
            if given.get("libraries"):
                from onnxq.model.session import custom_operators

                click.get_current_context().with_resource(custom_operators(given["libraries"]))
            return function(chosen=chosen, **values)

        decorated: Decorated = wrapper  # type: ignore[assignment]
        for name, each in reversed(known.items()):
            decorated = add(name, each)(decorated)
        return decorated

    return decorate


def recipe_option(options: type[Options]) -> Decorator:
    """Defaults from a file; see `onnxq.options.recipe`."""

    def read(ctx: click.Context, _param: click.Parameter, path: Path | None) -> None:
        if path is not None:
            from onnxq.options import recipe

            ctx.meta[RECIPE] = path
            # Made the defaults, so that the command line wins.
            ctx.default_map = {**(ctx.default_map or {}), **recipe.read(path, options)}

    return click.option(
        "--recipe",
        type=FILE,
        metavar="FILE.toml",
        is_eager=True,
        expose_value=False,
        callback=read,
        help="Take options from this file; those given here win.",
    )


def provided(chosen: Chosen, terminal: Terminal) -> Chosen:
    """The options with a provider that is here; says what `auto` became.

    Raises:
        ProviderError: there is none such, before any work.
    """
    from onnxq.commands.provider import with_provider

    settled, said = with_provider(chosen)
    if said:
        terminal.note(f"note: {said}")
    return settled
