"""The signatures and docstrings of the public functions, from the options that they take."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar

from onnxq.options.fields import REQUIRED, Option, Options, options_of
from onnxq.options.kinds import Choice, OneOf, Several
from onnxq.options.values import NameOrFile

Function = TypeVar("Function", bound=Callable[..., Any])


def takes(options: type[Options], keywords: type) -> Callable[[Function], Function]:
    """Tell `help`, notebooks and shells the keywords that a function takes as `**options`.

    Args:
        options: the value that they become.
        keywords: the TypedDict that type checkers and editors read.
    """

    def complete(function: Function) -> Function:
        own = inspect.signature(function)
        *first, last = own.parameters.values()
        if last.kind is not last.VAR_KEYWORD:
            raise TypeError(f"{function.__name__} takes no **options")
        types = {name: _text(each) for name, each in keywords.__annotations__.items()}
        more = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if each.default is REQUIRED else default_of(each),
                annotation=types[name],
            )
            for name, each in options_of(options).items()
            if name in types
        ]
        signature = own.replace(parameters=[*first, *more])
        function.__signature__ = signature  # type: ignore[attr-defined]
        if function.__doc__:
            told = "".join(f"    {line}\n" for line in _lines(options, types.keys()))
            function.__doc__ = f"{inspect.cleandoc(function.__doc__)}\n\nOptions:\n{told}"
        return function

    return complete


def default_of(option: Option) -> Any:
    """The default as the user writes it: strings, not members of enumerations."""
    value = option.default
    if value in {None, REQUIRED} or value == ():
        return value
    written = option.kind.write(value)
    return value if isinstance(value, tuple) and isinstance(written, str) else written


def values_of(option: Option) -> str:
    """What may be given, for people: the choices as they are written, or the kind."""
    kind = option.kind
    if isinstance(kind, Choice):
        return ", ".join(f'"{value}"' for value in kind.values)
    return kind.wanted


def _lines(options: type[Options], names: Collection[str]) -> Iterator[str]:
    """What each of the options named means, as lines for a docstring."""
    for name, each in options_of(options).items():
        if name in names:
            text = f"{name}: {each.help}{_choices(each)}"
            yield from textwrap.wrap(text, 90, subsequent_indent="    ", break_on_hyphens=False)


def _choices(option: Option) -> str:
    """The values of what is chosen from a few, as a sentence; "" for all else."""
    kind = option.kind.each if isinstance(option.kind, Several) else option.kind
    if not isinstance(kind, (Choice, NameOrFile, OneOf)):
        return ""
    many = "A list of" if isinstance(option.kind, Several) else "One of"
    values = [f'"{value}"' for value in getattr(kind, "values", ())]
    if isinstance(kind, OneOf):
        values = [str(value) for value in kind.of]
    if isinstance(kind, NameOrFile):
        values.append(f"the path of a {kind.suffix} file")
    default = f" Default {_quoted(default_of(option))}." if option.default is not None else ""
    return f" {many} {', '.join(values)}.{default}"


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _text(annotation: Any) -> str:
    """A type as it is written in the source."""
    return str(getattr(annotation, "__forward_arg__", annotation))
