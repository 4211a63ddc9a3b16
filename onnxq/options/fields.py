"""The fields of option values: each knows its kind, its help and its spelling."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from onnxq.errors import UsageError
from onnxq.options.kinds import Flag, Kind, Plain
from onnxq.suggest import suggest

if TYPE_CHECKING:
    from typing_extensions import Self

_KEY = "onnxq.option"

REQUIRED = dataclasses.MISSING
"""The default of an option that must be given."""


@dataclass(frozen=True)
class Option:
    """What is known of one option beside its name.

    Attributes:
        kind: which values it takes.
        help: one or two sentences.
        default: `REQUIRED` where it must be given; None where leaving it out means something.
        flag: its long name on the command line, if not the field's with dashes; None for an
            option of Python's only.
        metavar: what help shows for the value.
        recorded: whether it says how a model was made; what it was made from does not.
        decides: whether the result depends on it; what only costs time or memory does not.
    """

    kind: Kind
    help: str
    default: Any = None
    flag: str | None = ""
    metavar: str = ""
    recorded: bool = True
    decides: bool = True

    def accept(self, value: object, name: str) -> Any:
        """The value in its one form; raises `UsageError`."""
        return None if value is None and self.default is None else self.kind.accept(value, name)

    def long_name(self, field: str) -> str:
        """The long name on the command line, "" for an option of Python's only."""
        return "" if self.flag is None else self.flag or f"--{field.replace('_', '-')}"


def option(
    kind: Kind,
    help_text: str,
    default: Any = None,
    *,
    flag: str | None = "",
    metavar: str = "",
    recorded: bool = True,
    decides: bool = True,
) -> Any:
    """A dataclass field that is an option; see `Option`."""
    known = Option(kind, help_text, default, flag, metavar, recorded, decides)
    return dataclasses.field(default=default, metadata={_KEY: known})


def flag(help_text: str) -> Any:
    """A flag that is off unless it is given."""
    return option(Flag(), help_text, default=False)


def switch(help_text: str, *, default: bool) -> Any:
    """A flag with a `--no-` form, the default of which help shows."""
    return option(Flag(negatable=True), help_text, default)


class Options:
    """Base of the option values: frozen dataclasses whose fields are all made by `option`."""

    command: ClassVar[str]

    def __post_init__(self) -> None:
        for name, each in options_of(type(self)).items():
            object.__setattr__(self, name, each.accept(getattr(self, name), name))
        self.check()

    def check(self) -> None:
        """Refuse options that do not go together; raises `UsageError`."""

    @classmethod
    def of(cls, given: Mapping[str, Any], **more: Any) -> Self:
        """From keywords, whatever their types.

        Raises:
            UsageError: a name or a value is wrong, or one that is needed is missing.
        """
        known, given = options_of(cls), {**more, **given}
        for name in given:
            if name not in known:
                hint = suggest(name, known, of="they")
                raise UsageError(f"{cls.command} has no option {name!r}", hint=hint)
        for name, each in known.items():
            if each.default is REQUIRED and given.get(name) is None:
                what = each.long_name(name) + f" {each.metavar}"
                raise UsageError(f"{cls.command} needs {name}", hint=f"give {what.strip()}")
        return cls(**given)

    def plain(self) -> dict[str, Plain]:
        """The options by their long names without dashes, as a recipe holds them.

        What was left out, what has no say in the result and values that have no text are not
        there.
        """
        found = {}
        for name, each in options_of(type(self)).items():
            value, long_name = getattr(self, name), each.long_name(name)
            told = value is not None and long_name and each.decides
            text = each.kind.write(value) if told else None
            if text is not None:
                found[long_name.lstrip("-")] = text
        return found

    def settings(self) -> dict[str, Plain]:
        """Those of `plain` that say how a model was made, not what from."""
        sources = {
            each.long_name(name).lstrip("-")
            for name, each in options_of(type(self)).items()
            if not each.recorded
        }
        return {key: value for key, value in self.plain().items() if key not in sources}


def options_of(options: type[Options]) -> dict[str, Option]:
    """Field → option, in the order of help."""
    return {each.name: each.metadata[_KEY] for each in dataclasses.fields(options)}  # type: ignore[arg-type]
