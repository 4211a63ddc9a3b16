"""Every option of every command: wrong values from Python, the command line and recipes.

The tests run over the fields of the option values, so that a new option is among them.
"""

import dataclasses
import enum
import importlib
import inspect
import math
import os
import types
import typing
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import onnxq
import onnxq.api
import pytest
from click.testing import CliRunner
from onnxq.calibration.ranges import ESTIMATORS
from onnxq.cli import options as click_options
from onnxq.cli.group import onnxq as command_line
from onnxq.errors import UsageError
from onnxq.options import kinds, recipe, values
from onnxq.options.bench import BenchKeywords, BenchOptions
from onnxq.options.calibrate import CalibrateKeywords, CalibrateOptions, Provider
from onnxq.options.emulate import (
    CompareLayersKeywords,
    CompareLayersOptions,
    EmulateKeywords,
    EmulateOptions,
)
from onnxq.options.equalize import EqualizeKeywords, EqualizeOptions
from onnxq.options.explain import ExplainKeywords, ExplainOptions
from onnxq.options.fields import REQUIRED, Option, Options, option, options_of
from onnxq.options.inspect import InspectKeywords, InspectOptions
from onnxq.options.quantize import (
    QuantizeKeywords,
    QuantizeOptions,
    RangeEstimator,
    WeightRounding,
    WeightScales,
)
from onnxq.options.report import ReportKeywords, ReportOptions
from onnxq.options.shared import TargetName
from onnxq.options.tune import TuneKeywords, TuneOptions
from onnxq.options.validate import Execution, ValidateKeywords, ValidateOptions
from onnxq.targets.read import SHIPPED
from onnxq.validation.execute import EXECUTIONS

KEYWORDS = {
    CalibrateOptions: CalibrateKeywords, EqualizeOptions: EqualizeKeywords,
    QuantizeOptions: QuantizeKeywords, EmulateOptions: EmulateKeywords,
    CompareLayersOptions: CompareLayersKeywords, ValidateOptions: ValidateKeywords,
    InspectOptions: InspectKeywords, ExplainOptions: ExplainKeywords, ReportOptions: ReportKeywords,
    BenchOptions: BenchKeywords, TuneOptions: TuneKeywords,
}  # fmt: skip
"""All option values, and the keywords of their functions."""

POSITIONAL = {
    "equalize": ("m.onnx", "-o", "out.onnx"), "quantize": ("m.onnx", "-o", "out.onnx"),
    "validate": ("m.onnx", "q.onnx"), "explain": ("m.onnx", "node"),
    "report": ("m.onnx", "-o", "out.html"), "tune": ("m.onnx", "-o", "out.onnx"),
}  # fmt: skip
"""What a command needs beside options; else it is a model."""

WRONG: dict[type, list[object]] = {
    kinds.Whole: ["8", 0, 2.5, True, [1], 10**20],
    kinds.OneOf: ["x", 33, 32.0, True, [32]],
    kinds.Number: ["x", math.nan, True, [1]],
    kinds.Flag: ["yes", 1, []],
    kinds.Text: [3, ["x"]],
    kinds.Pattern: ["(", 3],
    kinds.Choice: ["no such", "", 3, Path("x")],
    kinds.Several: [3, {}],
    values.NameOrFile: ["tpu", "", 3],
    values.File: [3, ["x"]],
    values.TextOr: [3, True],
    values.Pairs: [3, True],
    values.Part: [(3, 2), (0, 2), "5/4", "one", 7, (1.0, 2.0), (1, 2, 3), "1/" + "9" * 5000],
    values.Share: ["x", "101%", 1.1, -0.1, True, [0.1]],
    values.Duration: ["soon", "10", "1m1h", "5m5m", "0s", -1, 0, math.inf, True],
    values.Size: ["big", "0 GB", "0.1", "9" * 400 + "GB", -1, 2.5, True],
}
"""Kind → values that are none of it; a kind that is new needs some."""

OF_NUMPY = {
    kinds.Whole: np.int32(8),
    kinds.OneOf: np.uint8(32),
    kinds.Number: np.float32(0.5),
    kinds.Flag: np.True_,
    values.Part: (np.int64(1), np.int64(2)),
    values.Share: np.float32(0.5),
    values.Duration: np.int64(90),
    values.Size: np.int64(10**9),
}
"""Kind → a value of its own as NumPy has it."""

ANY_TEXT = {kinds.Text, values.File, values.TextOr, values.Pairs}
"""Kinds of which every text is one."""


def every_option(chosen=lambda _options, _option: True):
    return [
        pytest.param(options, name, each, id=f"{options.command}-{name}")
        for options in KEYWORDS
        for name, each in options_of(options).items()
        if chosen(options, each)
    ]


def can_be_wrong_as_text(options: type[Options], option: Option) -> bool:
    """Whether the command line takes it, and not every text is right."""
    kind = option.kind.each if isinstance(option.kind, kinds.Several) else option.kind
    if option.flag is None or options is CompareLayersOptions:
        return False
    return type(kind) not in ANY_TEXT | {kinds.Flag}


def given(options: type[Options]) -> dict[str, object]:
    """The least that must be given."""
    data = "data" in options_of(options) and options is not EqualizeOptions
    values = {"validate_data": "random:8"} if options is TuneOptions else {}
    return {"data": "random:8", **values} if data else {}


def keep(found: list[Options]):
    """The body of a command that takes options."""

    def body(*, chosen):
        found.append(chosen)

    return body


def wrong_texts(kind: kinds.Kind) -> list[str]:
    """The wrong values that are wrong as words of a command line, too."""
    texts = [str(each) for each in wrong(kind) if isinstance(each, (str, int, float))]
    return [each for each in texts if is_wrong(kind, kind.read(each))]


def is_wrong(kind: kinds.Kind, value: object) -> bool:
    try:
        kind.accept(value, "x")
    except UsageError:
        return True
    return False


def wrong(kind: kinds.Kind) -> list[object]:
    if isinstance(kind, kinds.Several):
        items = [[value] for value in wrong(kind.each)]
        return [*WRONG[kinds.Several], "a text", *items]
    return WRONG[type(kind)]


@pytest.mark.parametrize(("options", "name", "option"), every_option())
def test_a_wrong_value_from_python(options, name, option):
    for value in wrong(option.kind):
        with pytest.raises(UsageError) as error:
            options.of({**given(options), name: value})
        assert error.value.message.startswith(name), (value, error.value.message)
        if isinstance(option.kind, kinds.Choice):
            assert all(each in error.value.message for each in option.kind.values)


@pytest.mark.parametrize("kind", OF_NUMPY, ids=lambda kind: kind.__name__)
def test_numbers_of_numpy_are_numbers(kind):
    value = OF_NUMPY[kind]
    made = kind((8, 32)) if kind is kinds.OneOf else kind()
    plain = tuple(each.item() for each in value) if isinstance(value, tuple) else value.item()
    found = made.accept(value, "it")
    assert (found, type(found)) == (made.accept(plain, "it"), type(made.accept(plain, "it")))
    if kind is not values.Part:
        with pytest.raises(UsageError, match="it must be"):
            made.accept(np.array([value, value]), "it")


@pytest.mark.parametrize(("options", "name", "option"), every_option())
def test_the_public_function_refuses_it_before_it_reads_a_model(options, name, option):
    function = getattr(onnxq.api, options.command)
    positional = ["nowhere.onnx"]
    positional += ["q.onnx"] if options is ValidateOptions else []
    positional += ["node"] if options is ExplainOptions else []
    with pytest.raises(UsageError, match=name):
        function(*positional, **{**given(options), name: wrong(option.kind)[0]})


@pytest.mark.parametrize(("options", "name", "option"), every_option(can_be_wrong_as_text))
def test_a_wrong_value_on_the_command_line(options, name, option):
    kind = option.kind.each if isinstance(option.kind, kinds.Several) else option.kind
    needed = [f"--{key.replace('_', '-')}={value}" for key, value in given(options).items()]
    for value in wrong_texts(kind):
        flag = option.long_name(name)
        words = [options.command, *POSITIONAL.get(options.command, ("m.onnx",)), *needed]
        result = CliRunner().invoke(command_line, [*words, f"{flag}={value}"])
        assert result.exit_code == 2, (value, result.output)
        assert result.stderr.startswith(f"error: {flag}"), result.stderr
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "name", "option"),
    every_option(lambda options, _: options in {EqualizeOptions, QuantizeOptions}),
)
def test_a_wrong_value_in_a_recipe(options, name, option, tmp_path):
    file, key = tmp_path / "r.toml", option.long_name(name).lstrip("-")
    for value in wrong(option.kind):
        if isinstance(option.kind, kinds.Several) and isinstance(value, str):
            continue  # a list of one
        if isinstance(value, (str, bool, int)) or value == [1]:
            file.write_text(f"[{options.command}]\n{key} = {recipe._toml(value)}\n")
            with pytest.raises(UsageError) as error:
                recipe.read(file, options)
            assert error.value.message.startswith(f"{file}: {key}")


@pytest.mark.parametrize(
    ("function", "wrong_one", "message", "hint"),
    [
        (
            "quantize",
            {"weights": "per_channel"},
            ("weights must be per-channel or per-tensor, not 'per_channel'"),
            "did you mean 'per-channel'?",
        ),
        (
            "quantize",
            {"rounding": "Adaptive"},
            ("rounding must be nearest or adaptive, not 'Adaptive'"),
            "did you mean 'adaptive'?",
        ),
        (
            "quantize",
            {"ranges": "MSE"},
            ("ranges must be auto, minmax, percentile, entropy or mse, not 'MSE'"),
            "did you mean 'mse'?",
        ),
        (
            "quantize",
            {"scale": "power of two"},
            ("scale must be float or power-of-two, not 'power of two'"),
            "did you mean 'power-of-two'?",
        ),
        ("quantize", {"rest": "float16"}, "rest must be fp32 or fp16, not 'float16'", ""),
        (
            "quantize",
            {"target": "GPU"},
            (
                "target must be auto, gpu, cpu, qnn, openvino, web, cpu-arm64, gpu-dla or the path of a .toml file, not 'GPU'"
            ),
            "did you mean 'gpu'?",
        ),
        ("quantize", {"samples": "8"}, "samples must be a whole number of at least 1, not '8'", ""),
        ("quantize", {"max_drop": "x"}, "max_drop must be a number, not 'x'", ""),
        (
            "quantize",
            {"include": "conv"},
            ("include must be a list, each a regular expression, not 'conv'"),
            "write ['conv']",
        ),
        (
            "quantize",
            {"exclude": ["conv("]},
            (
                "exclude 'conv(' is no regular expression: missing ), "
                "unterminated subpattern at position 4"
            ),
            "",
        ),
        (
            "quantize",
            {"wieghts": "per-channel"},
            "quantize has no option 'wieghts'",
            "did you mean 'weights'?",
        ),
        ("calibrate", {"provider": "gpu"}, "provider must be cpu, cuda or auto, not 'gpu'", ""),
        (
            "calibrate",
            {"batch_size": 0},
            ("batch_size must be a whole number of at least 1, not 0"),
            "",
        ),
        ("calibrate", {"shard": (3, 2)}, "shard: there is no part 3 of 2", ""),
        (
            "calibrate",
            {"dask": "tcp://h:1", "resume": True},
            ("--dask does not go with --resume"),
            "a Dask cluster takes the place of a state to resume from",
        ),
        ("calibrate", {"data": None}, "calibrate needs data", "give --data DATA"),
        (
            "emulate",
            {"batch_size": 2.0},
            ("batch_size must be a whole number of at least 1, not 2.0"),
            "",
        ),
        ("compare_layers", {"provider": "gpu"}, "provider must be cpu or cuda, not 'gpu'", ""),
    ],
)
def test_what_python_is_told(function, wrong_one, message, hint):
    with pytest.raises(UsageError) as error:
        getattr(onnxq.api, function)("m.onnx", **{"data": "random:8", **wrong_one})
    assert (error.value.message, error.value.hint) == (message, hint)


def test_more_that_python_is_told():
    with pytest.raises(UsageError, match="scales must be power-of-two or real, not 'int'"):
        onnxq.equalize("m.onnx", scales="int")
    with pytest.raises(UsageError, match="relu6 must be auto, tie, per-channel, relu or skip"):
        onnxq.equalize("m.onnx", relu6="tied")
    with pytest.raises(
        UsageError, match="each one of emulate, saturate, cpu, cuda, openvino or qnn, not 'cpu'"
    ):
        onnxq.validate("m.onnx", "q.onnx", "random:8", executions="cpu")
    with pytest.raises(
        UsageError,
        match="executions must be emulate, saturate, cpu, cuda, openvino or qnn, not 'gpu'",
    ):
        onnxq.validate("m.onnx", "q.onnx", "random:8", executions=["gpu"])
    with pytest.raises(UsageError, match="merge needs a list"):
        onnxq.merge("a.calib")


# --- one place -------------------------------------------------------------------------------


@pytest.mark.parametrize("options", KEYWORDS, ids=lambda each: each.command)
def test_the_keywords_are_those_of_the_options(options):
    """A TypedDict is for editors; an option it lacks is a parameter of the function's own."""
    keywords = KEYWORDS[options]
    module = importlib.import_module(options.__module__)
    names = {"os": os, "Sequence": Sequence}
    hints = typing.get_type_hints(keywords, localns=vars(module) | names)
    own = set(inspect.signature(inspect.unwrap(getattr(onnxq.api, options.command))).parameters)
    assert hints.keys() <= options_of(options).keys()
    assert options_of(options).keys() <= own
    for name, hint in hints.items():
        option = options_of(options)[name]
        kind = option.kind.each if isinstance(option.kind, kinds.Several) else option.kind
        assert (type(None) in typing.get_args(hint)) == (option.default is None)
        if isinstance(kind, kinds.Choice):
            assert literals(hint) == set(kind.values)
            assert kind.of in members(hint)
        if isinstance(kind, kinds.Flag):
            assert hint is bool


def members(hint: object) -> set[object]:
    """All types that a hint is made of."""
    found = {hint}
    for each in typing.get_args(hint):
        found |= (
            members(each)
            if isinstance(each, (type, types.UnionType)) or typing.get_args(each)
            else set()
        )
    return found


def literals(hint: object) -> set[str]:
    """The strings of the Literal types in a hint."""
    if typing.get_origin(hint) is typing.Literal:
        return set(typing.get_args(hint))
    return {value for each in typing.get_args(hint) for value in literals(each)}


def test_the_choices_are_those_of_the_stages():
    assert {each.value for each in RangeEstimator} == set(ESTIMATORS)
    assert {each.value for each in Execution} == set(EXECUTIONS)
    assert set(typing.get_args(TargetName)) == set(SHIPPED)


def test_signatures_show_names_defaults_and_choices():
    signature = inspect.signature(onnxq.quantize)
    assert list(signature.parameters)[:2] == ["model", "data"]
    ranges = signature.parameters["ranges"]
    assert ranges.default == "auto"
    assert "Literal['auto', 'minmax', 'percentile', 'entropy', 'mse']" in ranges.annotation.replace(
        '"', "'"
    )
    assert signature.parameters["max_trials"].default == 16
    assert "options" not in signature.parameters
    assert "rounding: How weights are rounded; adaptive, for the layer's output, needs" in (
        onnxq.quantize.__doc__
    )


@pytest.mark.parametrize("options", KEYWORDS, ids=lambda each: each.command)
def test_accepting_again_changes_nothing(options):
    once = options.of(given(options))
    assert dataclasses.replace(once) == once
    for name, each in options_of(options).items():
        if each.default not in {None, REQUIRED}:
            assert getattr(once, name) == each.default


@pytest.mark.parametrize("options", KEYWORDS, ids=lambda each: each.command)
def test_the_command_line_has_the_same_defaults(options):
    found = []
    command = click.command()(click_options.of(options)(keep(found)))
    needed = [f"--{key.replace('_', '-')}={value}" for key, value in given(options).items()]
    result = CliRunner().invoke(command, needed, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert found == [options.of(given(options))]


def test_strings_and_members_are_the_same():
    strings = {"data": "d", "weights": "per-tensor", "ranges": "minmax", "rounding": "nearest"}
    members = {"data": "d", "weights": WeightScales.PER_TENSOR, "ranges": RangeEstimator.MINMAX,
               "rounding": WeightRounding.NEAREST}  # fmt: skip
    assert QuantizeOptions.of(strings) == QuantizeOptions.of(members)
    assert CalibrateOptions.of({"data": "d", "provider": "auto"}).provider is Provider.AUTO


def test_other_spellings_from_python():
    chosen = CalibrateOptions.of({"data": Path("d"), "shard": "2/3", "memory": "2GB", "resume": True,
                                  "state": "x"})  # fmt: skip
    assert (chosen.data, chosen.shard, chosen.memory) == ("d", (2, 3), 2 * 10**9)
    assert chosen.state == Path("x")
    pairs = {"resize": 96, "mean": [0.5, 0.4, 0.3]}
    assert EmulateOptions.of({"data": "d", "preprocess": pairs}).preprocess == (
        "resize=96,mean=0.5:0.4:0.3"
    )


# --- recipes and settings --------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        QuantizeOptions.of({"data": "d", "weights": "per-tensor", "exclude": ["^a$", 'b"c'],
                            "max_drop": 0.5, "validate_data": "v", "max_minutes": math.inf,
                            "libraries": ["lib.so"], "preprocess": "unit", "samples": 3}),
        QuantizeOptions.of({"calibration": "c.calib"}),
        EqualizeOptions.of({"relu6": "skip"}),
    ],
)  # fmt: skip
def test_a_recipe_says_the_same_again(options, tmp_path):
    file = tmp_path / "r.toml"
    file.write_text(f"[{options.command}]\n{recipe.written(options)}")
    assert type(options).of(recipe.read(file, type(options))) == options


def test_settings_leave_out_what_a_model_was_made_from():
    found = QuantizeOptions.of({"data": "images/", "preprocess": "unit"}).settings()
    assert found["weights"] == "per-channel"
    assert found["bias-correction"] is True
    assert not {"data", "preprocess", "calibration", "validate-data"} & found.keys()


class Effort(enum.Enum):
    FAST = "fast"
    BEST = "best"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extended(EqualizeOptions):
    effort: Effort = option(kinds.Choice(Effort), "How long.", Effort.FAST)  # noqa: RUF009


def test_one_field_is_an_option_everywhere(tmp_path):
    found = []
    command = click.command()(click_options.of(Extended)(keep(found)))
    shown = CliRunner().invoke(command, ["--help"]).stdout
    assert "--effort [fast|best]" in shown
    assert "[default: fast]" in shown
    CliRunner().invoke(command, ["--effort", "best"], catch_exceptions=False)
    (chosen,) = found
    assert chosen.effort is Effort.BEST
    assert 'effort = "best"\n' in recipe.written(chosen)
    assert chosen.settings()["effort"] == "best"
    with pytest.raises(UsageError, match="effort must be fast or best, not 'slow'"):
        Extended.of({"effort": "slow"})


def test_what_has_no_say_in_the_result_is_in_no_recipe():
    usual = QuantizeOptions(data="x.npz")
    lean = QuantizeOptions(data="x.npz", batch_size=2, memory="30MB")
    assert (lean.batch_size, lean.memory) == (2, 30_000_000)
    assert recipe.written(lean) == recipe.written(usual)
    assert "memory" not in recipe.written(lean)
    assert lean.settings() == usual.settings()


@pytest.mark.parametrize("of", [QuantizeOptions.of, EqualizeOptions.of, ReportOptions.of])
@pytest.mark.parametrize(("name", "value"), [("mask", "nothing"), ("tokenizer", "none.json")])
def test_what_says_how_data_are_read_needs_data(of, name, value):
    scheme = {"scheme": "w8", "target": "cpu"} if of == QuantizeOptions.of else {}
    with pytest.raises(UsageError) as error:
        of({name: value, **scheme})
    assert (error.value.message, error.value.hint) == (f"--{name} needs data", "give --data")
