"""Metrics by name, from the user's files and from Python, with their options."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import itertools
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from onnxq.errors import OnnxqError, UsageError
from onnxq.python_files import RAISED, brief, load_callable
from onnxq.refusal import Refusal
from onnxq.suggest import suggest
from onnxq.validation.metrics.builtin import CLOSENESS, METRICS, SampleMean
from onnxq.validation.metrics.protocol import AnyMetric, Metric, Task

MetricLike: TypeAlias = str | Callable[..., Any]
"""A name, `FILE.py:name`, or a function or class; see `metric_named`."""

CLASSES = "classes"
"""The field of a metric that holds the characters which indices stand for."""

_IN_A_FILE = re.compile(r"(?P<path>.*\.py):(?P<name>[^:]+)(?::(?P<options>.*))?")


def metric_named(metric: MetricLike, classes: tuple[str, ...] = ()) -> AnyMetric:
    """A metric by its name, from a file of the user's, or given as it is.

    Args:
        metric: a name, with options such as `map:score=0.25,iou=0.5`; `FILE.py:name`, whose file is
            run only because the user named it; or the function or class itself. A function
            takes (first output, labels or None) of one batch and returns one number for each
            sample. A class, or what makes an instance without arguments, follows `Metric`.
        classes: names of the model's classes, for those metrics by name that have such a field.

    Raises:
        UsageError: no such metric, file or name, or an option that it does not have.
    """
    if not isinstance(metric, str):
        name = getattr(metric, "__name__", type(metric).__name__)
        return _task(name, name, _factory(metric), of_user=True)
    found = _IN_A_FILE.fullmatch(metric)
    if found is not None:
        loaded = load_callable(Path(found["path"]), found["name"])
        if isinstance(loaded, Refusal):
            raise UsageError(f"metric {metric!r}: {loaded}")
        create = _with_options(metric, _factory(loaded), found["options"] or "")
        return _task(found["name"], metric, create, of_user=True)
    name, _, options = metric.partition(":")
    if name in CLOSENESS and not options:
        return CLOSENESS[name]
    if name not in METRICS:
        known = (*METRICS, *CLOSENESS)
        near = suggest(name, known)
        raise UsageError(
            f"unknown metric {name!r}", hint=near or f"one of {', '.join(known)}, or FILE.py:name"
        )
    create = METRICS[name]
    if classes and CLASSES in option_types(create):
        create = functools.partial(create, **{CLASSES: classes})
    return _task(metric, metric, _with_options(metric, create, options))


def metrics_named(
    metrics: Sequence[MetricLike], classes: tuple[str, ...] = ()
) -> tuple[AnyMetric, ...]:
    """`metric_named` of each, with names that tell them apart: gates and tables go by these.

    Where two would have one name, those of the user's are called as they were given, and counted.
    """
    found = [metric_named(each, classes) for each in metrics]
    names = [each.name for each in found]
    taken = {each.name for each in found if not _of_user(each)}
    result: list[AnyMetric] = []
    for metric in found:
        if isinstance(metric, Task) and metric.of_user:
            name = _free(metric.given if names.count(metric.name) > 1 else metric.name, taken)
            taken.add(name)
            result.append(dataclasses.replace(metric, name=name))
        else:
            result.append(metric)
    return tuple(result)


def _free(name: str, taken: Collection[str]) -> str:
    """The name, with a number where it is taken."""
    numbered = (f"{name} {number}" for number in itertools.count(2))
    return next(each for each in itertools.chain([name], numbered) if each not in taken)


def once(metrics: Sequence[MetricLike]) -> tuple[MetricLike, ...]:
    """The metrics without those that were named before."""
    return tuple(each for at, each in enumerate(metrics) if each not in metrics[:at])


def _of_user(metric: AnyMetric) -> bool:
    return isinstance(metric, Task) and metric.of_user


def takes_classes(metric: MetricLike) -> bool:
    """Whether a metric reads texts, for which it needs to know the model's characters."""
    name = metric.partition(":")[0] if isinstance(metric, str) else ""
    return name in METRICS and CLASSES in option_types(METRICS[name])


def takes_numbers(metric: MetricLike) -> bool:
    """Whether a metric compares with numbers, such as scores or class indices."""
    create = METRICS.get(metric.partition(":")[0]) if isinstance(metric, str) else None
    return bool(getattr(getattr(create, "func", create), "takes_numbers", False))


def _factory(found: Callable[..., Any]) -> Callable[..., Metric]:
    """What makes instances: the callable itself, or one for a function of a batch."""
    try:
        inspect.signature(found).bind()
    except (TypeError, ValueError):
        if not isinstance(found, type):
            return functools.partial(SampleMean, found)
    return found


def _task(
    name: str, given: str, create: Callable[[], Metric], *, of_user: bool = False
) -> Task:  # fmt: skip
    try:
        instance = create()
    except OnnxqError:
        raise
    except RAISED as error:
        raise UsageError(f"metric {given!r} failed: {brief(error)}") from error
    missing = [each for each in ("update", "compute") if not callable(getattr(instance, each, 0))]
    if missing:
        raise UsageError(
            f"metric {given!r} makes a {type(instance).__name__} without {missing[0]}()",
            hint="a function takes (outputs, labels); a class has update() and compute()",
        )
    return Task(
        name, given, create, str(getattr(instance, "unit", "")),
        bool(getattr(instance, "higher_is_better", True)),
        bool(getattr(instance, "needs_labels", False)), of_user,
        not of_user and bool(getattr(instance, "drop_in_percent", False)),
    )  # fmt: skip


# --- options ---------------------------------------------------------------------------------


def _with_options(
    metric: str, create: Callable[..., Metric], text: str
) -> Callable[..., Metric]:  # fmt: skip
    """The factory with the options of `name:key=value,…`, read as its fields' types."""
    if not text:
        return create
    types_of = option_types(create)
    given: dict[str, Any] = {}
    for pair in text.split(","):
        key, equals, value = (part.strip() for part in pair.partition("="))
        if key not in types_of:
            options = ", ".join(types_of) or "none"
            raise UsageError(
                f"metric {metric!r}: no option {key!r}",
                hint=suggest(key, types_of) or f"its options: {options}",
            )
        given[key] = _value(metric, key, value if equals else "true", types_of[key])
    return functools.partial(create, **given)


def option_types(create: Callable[..., Metric]) -> Mapping[str, Any]:
    """Option → type: the fields of a dataclass that its row in the table leaves open."""
    fixed: set[str] = set()
    made: Any = create
    while isinstance(made, functools.partial):
        fixed |= set(made.keywords)
        made = made.func
    if not dataclasses.is_dataclass(made):
        return {}
    hints = typing.get_type_hints(made)
    return {
        each.name: hints[each.name]
        for each in dataclasses.fields(made)
        if each.init and each.name not in fixed
    }


def _value(metric: str, key: str, text: str, kind: Any) -> Any:
    """An option's value from its text.

    Raises:
        UsageError: it is none of the field's type.
    """
    if isinstance(kind, types.UnionType):
        kind = next(each for each in typing.get_args(kind) if each is not type(None))
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    try:
        if kind is bool:
            return words[text.lower()]
        if isinstance(kind, type) and issubclass(kind, (int, float, str, enum.Enum)):
            return kind(text)
    except (ValueError, KeyError):
        pass
    if typing.get_origin(kind) is typing.Literal and text in typing.get_args(kind):
        return text
    raise UsageError(f"metric {metric!r}: {key} cannot be {text!r}", hint=_allowed(kind))


def _allowed(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return f"one of {', '.join(str(each.value) for each in kind)}"
    if typing.get_origin(kind) is typing.Literal:
        return f"one of {', '.join(typing.get_args(kind))}"
    plain = {bool: "true or false", int: "a whole number", float: "a number"}
    return plain.get(kind, "it cannot be set from text")
