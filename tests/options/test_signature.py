"""Signatures and docstrings of functions, from the options that they take."""

import enum
import inspect
from dataclasses import dataclass
from typing import ClassVar, Literal, TypedDict

import pytest
from onnxq.errors import UsageError
from onnxq.options.commands import COMMANDS
from onnxq.options.fields import REQUIRED, Options, flag, option, options_of
from onnxq.options.kinds import Choice, Several, Whole
from onnxq.options.reading import ReadingKeywords, ReadingOptions
from onnxq.options.signature import default_of, takes, values_of


class Speed(enum.Enum):
    FAST = "fast"
    SLOW = "slow"


@dataclass(frozen=True, kw_only=True)
class Mine(Options):
    command: ClassVar[str] = "mine"

    count: int = option(Whole(), "How many.", REQUIRED)
    speed: Speed = option(Choice(Speed), "How fast.", Speed.FAST)  # noqa: RUF009
    sizes: tuple[int, ...] = option(Several(Whole()), "Sizes.", ())
    dry: bool = flag("Do nothing.")
    hidden: int | None = option(Whole(), "Not told.")


class Keywords(TypedDict, total=False):
    count: int
    speed: 'Speed | Literal["fast", "slow"]'
    sizes: tuple[int, ...]
    dry: bool


@takes(Mine, Keywords)
def work(model, *, progress=None, **options):
    """Do the work.

    Returns:
        Nothing.
    """
    return Mine.of(options)


def test_keywords_are_in_the_signature_with_their_defaults():
    found = inspect.signature(work).parameters
    assert list(found) == ["model", "progress", "count", "speed", "sizes", "dry"]
    assert found["count"].default is inspect.Parameter.empty
    assert [found[name].default for name in ("speed", "sizes", "dry")] == ["fast", (), False]
    assert found["speed"].annotation == 'Speed | Literal["fast", "slow"]'
    assert all(found[name].kind is inspect.Parameter.KEYWORD_ONLY for name in list(found)[1:])


def test_the_docstring_tells_each_option_and_its_choices():
    lines = work.__doc__.splitlines()
    assert lines[0] == "Do the work."
    start = lines.index("Options:")
    assert lines[start + 1 :] == [
        "    count: How many.",
        '    speed: How fast. One of "fast", "slow". Default "fast".',
        "    sizes: Sizes.",
        "    dry: Do nothing.",
    ]


def test_a_function_without_keywords_of_its_own_is_refused():
    with pytest.raises(TypeError, match=r"plain takes no [*][*]options"):

        @takes(Mine, Keywords)
        def plain(model):
            pass


def test_defaults_and_values_are_as_users_write_them():
    found = options_of(Mine)
    assert default_of(found["speed"]) == "fast"
    assert default_of(found["count"]) is REQUIRED
    assert default_of(found["hidden"]) is None
    assert values_of(found["speed"]) == '"fast", "slow"'
    assert values_of(found["count"]) == "a whole number of at least 1"


def test_a_wrong_or_missing_option_is_named():
    assert work(None, count=3).speed is Speed.FAST
    with pytest.raises(UsageError, match="mine needs count") as caught:
        work(None)
    assert caught.value.hint == "give --count"
    with pytest.raises(UsageError, match="mine has no option 'sped'") as caught:
        work(None, count=1, sped="fast")
    assert caught.value.hint == "did you mean 'speed'?"


def test_every_command_that_reads_data_has_the_same_options_for_it():
    own = set(options_of(ReadingOptions))
    assert own == {"data", "preprocess", "tokenizer", "samples", "states", "input_shapes"}
    assert set(ReadingKeywords.__annotations__) < own
    readers = [each for each in ReadingOptions.__subclasses__() if each.__module__.startswith("onnxq")]  # fmt: skip
    for each in readers:
        assert own <= set(options_of(each))
        assert each.command in COMMANDS or each.command == "compare_layers"
