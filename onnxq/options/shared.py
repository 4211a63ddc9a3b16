"""Options that several commands share, so that they read and mean the same everywhere."""

from __future__ import annotations

import enum
from typing import Any, Literal, Protocol, get_args

from onnxq.errors import UsageError
from onnxq.options.fields import REQUIRED, Options, flag, option, switch
from onnxq.options.kinds import Choice, Number, Pattern, Several, Text, Whole
from onnxq.options.values import File, NameOrFile, Pairs, Size, TextOr

BATCH_SIZE = 8
"""Samples run at once, where nobody says and the model does not fix it."""

TargetName = Literal["gpu", "cpu", "qnn", "openvino", "web", "cpu-arm64", "gpu-dla"]
"""The shipped targets."""

TARGET = NameOrFile(get_args(TargetName), ".toml")

AUTO = "auto"
"""The target that the machine at hand decides."""


DATA = (
    "a path, an array, arrays by input name, an iterable or a function that yields feeds, a "
    "DataLoader, a dataset, a CalibrationDataReader, a list of images or of their paths, or a "
    "data source"
)


def _is_data(value: object) -> bool:
    """Whether it may be data of Python's; what opens it says more."""
    can = ("batches", "__array__", "__iter__", "__getitem__", "get_next", "__call__")
    return not isinstance(value, (bytes, bytearray)) and any(hasattr(value, each) for each in can)


def require_data(options: Options, *names: str) -> None:
    """Raise `UsageError` where there are no data, but options say how they are read.

    Args:
        names: of options that have no default.
    """
    given = [name for name in names if getattr(options, name) is not None]
    if given and getattr(options, "data", None) is None:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(f"{flags} need{'s' * (len(given) == 1)} data", hint="give --data")


def data(*, required: bool = False, extra: str = "") -> Any:
    return option(
        TextOr(DATA, _is_data),
        "Samples: an .npz, .npy, .h5, .parquet or .tar file, texts in a .txt, .jsonl or .parquet "
        "file, a folder of images, of class folders, of .npz files or of test_data_set_*, "
        f"file.py:function, or random:N.{extra}",
        REQUIRED if required else None,
        metavar="DATA",
        recorded=False,
    )


def validate_data(help_text: str, *, required: bool = False) -> Any:
    return option(
        TextOr(DATA, _is_data),
        help_text,
        REQUIRED if required else None,
        metavar="DATA",
        recorded=False,
    )


def preprocess() -> Any:
    return option(
        Pairs(
            "a preset, pairs such as resize=96,mean=0.5,std=0.5, or a function",
            lambda value: hasattr(value, "apply") or callable(value),
        ),
        "How images become inputs: imagenet, tf, unit, pixels, or pairs such as "
        "resize=96,crop=96,mean=0.5,std=0.5 or letterbox=640.",
        metavar="P",
        recorded=False,
    )


def tokenizer() -> Any:
    return option(
        File(),
        "The tokenizer.json that makes texts samples: lines of a .txt file, the field text of a "
        ".jsonl or .parquet file, or FILE.jsonl:field.",
        metavar="FILE",
        recorded=False,
    )


def samples() -> Any:
    return option(Whole(), "Use at most N samples.", metavar="N")


def states() -> Any:
    return option(
        Several(Text("OUT=IN, an output and the input that takes it")),
        "A state of a streaming model: output OUT of a step is input IN of the next; repeatable.",
        (),
        flag="--state",
        metavar="OUT=IN",
    )


def mask() -> Any:
    return option(
        Text("the name of an input, or none"),
        "The input that says which positions of a sample count, those above 0; none if none does.  "
        "[default: attention_mask where the model has it]",
        metavar="NAME",
    )


def input_shapes(*, fixed: bool = False) -> Any:
    """Of inputs whose sizes the model leaves open: fixed in what is written, or for samples."""
    of = (
        "that the model leaves open and its result fixes, as NPUs want it"
        if fixed
        else ("for random samples, where the model leaves it open")
    )
    return option(
        Several(Text("a shape such as 1x3x320x320 or NAME:1x3x320x320")),
        f"Shape of an input {of}: 1x3x320x320, or NAME:1x3x320x320; repeatable.",
        (),
        flag="--input-shape",
        metavar="SHAPE",
    )


def allow_nonfinite() -> Any:
    return flag("Leave NaN and Inf out of the ranges instead of refusing them.")


def batch_size() -> Any:
    return option(
        Whole(),
        "Samples to run at once, at most; a size the model fixes wins.",
        BATCH_SIZE,
        metavar="B",
        decides=False,
    )


def batch_size_by_model() -> Any:
    """Of commands that run quantized models."""
    return option(
        Whole(),
        "Samples to run at once, at most; a size the model fixes wins.  "
        f"[default: {BATCH_SIZE}; 1 where activations are quantized as the model runs]",
        None,
        metavar="B",
        decides=False,
    )


def memory() -> Any:
    return option(
        Size(),
        "Memory for activations, such as 500MB; the result is the same.  [default: a quarter of "
        "what is free, at most 1GiB]",
        0,
        metavar="SIZE",
        decides=False,
    )


def calibration(help_text: str = "A file that onnxq calibrate wrote for this model.") -> Any:
    return option(
        TextOr("a calibration or the path of its file", lambda value: hasattr(value, "tensors")),
        help_text,
        metavar="FILE.calib",
        recorded=False,
    )


def target(
    help_text: str, default: str | None = TARGET.values[0], *, automatic: bool = False
) -> Any:
    """Whom the quantized model is for; without a default a model says it itself.

    Args:
        automatic: whether the machine at hand may decide.
    """
    kind = NameOrFile((*[AUTO] * automatic, *TARGET.values), ".toml")
    metavar = f"[{'|'.join(kind.values)}|FILE.toml]"
    return option(kind, help_text, default, metavar=metavar)


def absorb_bias(*, default: bool, extra: str) -> Any:
    return switch(f"Center activations by shifting biases{extra}.", default=default)


def max_drop() -> Any:
    return option(
        Number(),
        "Fail if a quantized model's metric falls more than X below the float one's, in its unit; "
        "for sqnr, if the error is above X % of the worst output.",
        metavar="X",
    )


def outputs() -> Any:
    return option(
        Several(Text("the name of an output")),
        "Look at this output only; repeatable.  [default: all outputs; the worst counts]",
        (),
        flag="--output-name",
        metavar="NAME",
    )


def min_accuracy() -> Any:
    return option(Number(), "Fail if any model's metric is below X.", metavar="X")


def dask() -> Any:
    return option(
        Text("the address of a Dask scheduler"),
        "Run on the workers of this Dask scheduler, such as tcp://host:8786; they see model and "
        "data under the same paths.",
        metavar="ADDRESS",
    )


def include() -> Any:
    return option(
        Several(Pattern()),
        "Quantize only nodes whose name matches; repeatable.",
        (),
        metavar="REGEX",
    )


def exclude() -> Any:
    return option(
        Several(Pattern()),
        "Leave nodes whose name matches in float; repeatable.",
        (),
        metavar="REGEX",
    )


def exclude_operators() -> Any:
    return option(
        Several(Text("the name of an operator")),
        "Leave nodes with this operator in float, such as Softmax; repeatable.",
        (),
        flag="--exclude-op",
        metavar="OPERATOR",
    )


def libraries() -> Any:
    """Libraries that every session of the command knows."""
    return option(
        Several(File()),
        "Shared library of custom operators for ONNX Runtime.",
        (),
        flag="--custom-op-library",
        metavar="FILE",
        recorded=False,
    )


class Provider(enum.Enum):
    """Where ONNX Runtime runs models over data."""

    CPU = "cpu"
    CUDA = "cuda"
    AUTO = "auto"
    """CUDA where a session runs there, else the CPU."""


ProviderName = Literal["cpu", "cuda", "auto"]


class Provided(Protocol):
    """Options of a command that has `provider`."""

    @property
    def provider(self) -> Provider:
        """As asked for."""


def provider() -> Any:
    """Of commands that run models over data."""
    return option(
        Choice(Provider),
        "Where ONNX Runtime runs models over the data; auto: CUDA if a session runs there.",
        Provider.CPU,
    )
