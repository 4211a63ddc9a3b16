"""Options that several commands share, so that they read and mean the same everywhere."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click
from click.shell_completion import CompletionItem

from onnxq.cli.terminal import Terminal
from onnxq.errors import OnnxqError, ResourceError

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


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
        click.get_current_context().find_root().obj.verbose = verbose
        try:
            return function(terminal=Terminal(as_json, verbose, quiet), **options)
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


SAVING = ("memory", "batch_size", "jobs")
"""Options a lower value of which needs less memory."""


def _at_fault(values: Iterable[object]) -> OnnxqError | None:
    """The refusal of a model among a command's arguments; None where all are valid: a bug."""
    from onnxq.model.session import refusal_of

    given = (each for value in values for each in (value if isinstance(value, tuple) else [value]))
    models = [each for each in given if isinstance(each, Path) and each.suffix == ".onnx"]
    refusals = (refusal_of(path) for path in models if path.is_file())
    return next((each for each in refusals if each is not None), None)


def complete_file(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Let the shell complete a path."""
    return [CompletionItem(incomplete, type="file")]


def model_argument(name: str = "model", metavar: str = "MODEL") -> Decorator:
    return click.argument(name, type=FILE, metavar=metavar)


def data_option(*, required: bool = False, extra: str = "") -> Decorator:
    return click.option(
        "--data", metavar="DATA", required=required, shell_complete=complete_file,
        help="Samples: an .npz, .npy, .h5, .parquet or .tar file, a folder of images, of class "
        f"folders or of test_data_set_*, file.py:function, or random:N.{extra}",
    )  # fmt: skip


def preprocess_option() -> Decorator:
    return click.option(
        "--preprocess", metavar="P",
        help="How images become inputs: imagenet, tf, unit, or pairs such as "
        "resize=96,crop=96,mean=0.5,std=0.5.",
    )  # fmt: skip


def samples_option() -> Decorator:
    return click.option(
        "--samples", type=click.IntRange(min=1), metavar="N", help="Use at most N samples."
    )


def batch_size_option() -> Decorator:
    return click.option(
        "--batch-size", type=click.IntRange(min=1), default=8, show_default=True, metavar="B",
        help="Samples to run at once, at most; a size the model fixes wins.",
    )  # fmt: skip


UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_memory(_ctx: click.Context, _param: click.Parameter, text: str | None) -> int:
    """A number of bytes, 0 where none is given."""
    if text is None:
        return 0
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if found is None or found[2] not in UNITS or float(found[1]) <= 0:
        raise click.BadParameter(f"{text!r} is no size, such as 2GB or 500MB")
    return int(float(found[1]) * UNITS[found[2]])


def memory_option() -> Decorator:
    return click.option(
        "--memory", callback=parse_memory, metavar="SIZE",
        help="Memory for activations, such as 500MB; the result is the same.  [default: a quarter "
        "of what is free, at most 1GiB]",
    )  # fmt: skip


def calibration_option() -> Decorator:
    return click.option(
        "--calibration", type=FILE, metavar="FILE.calib",
        help="A file that onnxq calibrate wrote for this model.",
    )  # fmt: skip


def output_option(what: str, metavar: str, *, required: bool = True) -> Decorator:
    return click.option(
        "-o", "--output", type=FILE, required=required, metavar=metavar, help=f"Write {what} here."
    )


def choice(name: str, values: tuple[str, ...], help_text: str, *, default: str) -> Decorator:
    """An option with fixed values, the default of which `--help` shows."""
    return click.option(
        name, type=click.Choice(values), default=default, show_default=True, help=help_text
    )


class TargetType(click.Choice[str]):
    """A shipped target by its name, or a file that describes another."""

    name = "target"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """As `Choice` does, but the path of a TOML file passes."""
        if isinstance(value, str) and value.endswith(".toml"):
            return value
        return str(super().convert(value, param, ctx))


def target_option(help_text: str) -> Decorator:
    """Whom the int8 model is for."""
    return click.option(
        "--target", type=TargetType(("gpu", "cpu")), default="gpu", show_default=True,
        metavar="[gpu|cpu|FILE.toml]", help=help_text,
    )  # fmt: skip


def recipe_option() -> Decorator:
    """Defaults from a file; see `onnxq.cli.recipe`."""

    def read(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
        from onnxq.cli.recipe import take

        take(ctx, param, path)

    return click.option(
        "--recipe", type=FILE, metavar="FILE.toml", is_eager=True, expose_value=False,
        callback=read, help="Take options from this file; those given here win.",
    )  # fmt: skip


def max_drop_option() -> Decorator:
    return click.option(
        "--max-drop", type=float, metavar="X",
        help="Fail if a quantized model's metric falls more than X below the float "
        "one's, in its unit; for sqnr, if the error is above X % of the outputs.",
    )  # fmt: skip


def min_accuracy_option() -> Decorator:
    return click.option(
        "--min-accuracy", type=float, metavar="X", help="Fail if any model's metric is below X."
    )


def absorb_option(*, default: bool, extra: str) -> Decorator:
    return click.option(
        "--absorb-bias/--no-absorb-bias", default=default, show_default=True,
        help=f"Center activations by shifting biases{extra}.",
    )  # fmt: skip


def dask_option() -> Decorator:
    return click.option(
        "--dask", metavar="ADDRESS",
        help="Run on the workers of this Dask scheduler, such as tcp://host:8786; they see model "
        "and data under the same paths.",
    )  # fmt: skip


def libraries_option() -> Decorator:
    """Libraries that every session of the command knows."""

    def register(ctx: click.Context, _param: click.Parameter, paths: tuple[Path, ...]) -> None:
        if paths:
            from onnxq.model.session import custom_operators

            ctx.with_resource(custom_operators(paths))

    return click.option(
        "--custom-op-library", type=FILE, multiple=True, metavar="FILE", expose_value=False,
        callback=register, help="Shared library of custom operators for ONNX Runtime.",
    )  # fmt: skip


def check_output(output: Path | None, *inputs: Path | str | None) -> None:
    """Fail before the long work where its result has no place, or would destroy an input."""
    if output is None:
        return
    from onnxq.model.files import require_distinct, require_writable

    require_writable(output)
    require_distinct(output, *(Path(source) for source in inputs if source is not None))
