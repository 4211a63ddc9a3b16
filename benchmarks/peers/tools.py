"""Which tools are compared, at which versions, in which modes: plain and the best documented one.

Training is left out; rounding learned layer by layer (AdaRound) takes minutes and is marked slow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

TORCH = "torch==2.13.0"
"""This version's plain wheel is the CPU build; others bring gigabytes of CUDA."""

TENSOR, CHANNEL = "per tensor", "per channel"


@dataclass(frozen=True)
class Mode:
    """One row of the table.

    Attributes:
        name: the mode in the tool's own words.
        weights: whether the weights have a scale per tensor, per channel or for blocks.
        settings: what the driver reads; for onnxq the options of `onnxq quantize`.
        slow: takes minutes, so that it runs with `--slow` only.
    """

    name: str
    weights: str
    settings: Mapping[str, Any] | tuple[str, ...]
    slow: bool = False

    @property
    def key(self) -> str:
        return f"{self.name}, {self.weights}"


@dataclass(frozen=True)
class Tool:
    """A quantizer: what to install and the modes to run.

    `driver` is a script of `drivers/`; None stands for the `onnxq` command of this environment.
    """

    name: str
    version: str
    modes: tuple[Mode, ...]
    requirements: tuple[str, ...] = ()
    driver: str | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def _both(name: str, *, slow: bool = False, **settings: Any) -> tuple[Mode, Mode]:
    return (
        Mode(name, TENSOR, {**settings, "per_channel": False}, slow),
        Mode(name, CHANNEL, {**settings, "per_channel": True}, slow),
    )


def _channel(name: str, *, slow: bool = False, **settings: Any) -> tuple[Mode]:
    return (Mode(name, CHANNEL, {**settings, "per_channel": True}, slow),)


def _tensor(name: str, *, slow: bool = False, **settings: Any) -> tuple[Mode]:
    return (Mode(name, TENSOR, {**settings, "per_channel": False}, slow),)


def _onnxq(options: str) -> tuple[Mode, Mode]:
    words = tuple(options.split())
    return (
        Mode(f"`{options}`", TENSOR, (*words, "--weights", "per-tensor")),
        Mode(f"`{options}`", CHANNEL, (*words, "--weights", "per-channel")),
    )


_QUARK = {"scales": "float", "calibration": "MinMax"}

TOOLS = (
    Tool(
        "onnxruntime",
        "1.32.0",
        (
            *_both("minmax", method="MinMax"),
            *_channel("percentile", method="Percentile"),
            *_channel("entropy", method="Entropy"),
        ),
        # MatMulNBits is written through onnx-ir.
        ("onnxruntime==1.32.0", "onnx==1.23.2", "onnx-ir==1.1.0"),
        "with_onnxruntime.py",
    ),
    Tool(
        "nvidia-modelopt",
        "0.47.0",
        (
            *_channel("default: entropy, fp16 rest", method="entropy", rest="fp16"),
            *_channel("max, fp32 rest", method="max", rest="fp32"),
            *_channel("entropy, fp32 rest", method="entropy", rest="fp32"),
        ),
        (TORCH, "nvidia-modelopt[onnx]==0.47.0"),
        "with_modelopt.py",
    ),
    Tool(
        "nncf",
        "3.4.0",
        (
            *_both("symmetric, fast bias correction",
                   preset="performance", fast_bias_correction=True),
            *_both("symmetric, full bias correction",
                   preset="performance", fast_bias_correction=False),
            *_channel("mixed, full bias correction", preset="mixed", fast_bias_correction=False),
        ),
        ("nncf==3.4.0", "onnx==1.23.2", "onnxruntime==1.32.0"),
        "with_nncf.py",
        MappingProxyType({"NNCF_CI": "1"}),  # sends no usage statistics
    ),
    Tool(
        "amd-quark",
        "0.13",
        (
            *_both("minmax", **_QUARK),
            *_channel("percentile", scales="float", calibration="Percentile"),
            *_tensor("XINT8 preset: power-of-two scales", scales="power-of-two"),
            *_both("equalization, ReLU6 to ReLU", equalize=True, **_QUARK),
            *_both("equalization, ReLU6 to ReLU, AdaRound", equalize=True, adaround=True,
                   slow=True, **_QUARK),
            *_channel("AdaRound", adaround=True, slow=True, **_QUARK),
        ),
        (TORCH, "amd-quark==0.13", "onnx==1.22.0", "onnxruntime==1.32.0"),
        "with_quark.py",
    ),
    Tool(
        "aimet-onnx",
        "2.42.0",
        (
            *_both("min-max"),
            *_both("cross-layer equalization", equalize=True),
            *_channel("SeqMSE", seq_mse=True, slow=True),
            *_channel("AdaRound, 200 iterations", adaround=200, slow=True),
        ),
        (TORCH, "torchvision==0.28.0", "aimet-onnx==2.42.0", "onnx==1.23.2", "onnxruntime==1.32.0"),
        "with_aimet.py",
    ),
    Tool(
        "onnxq",
        "this tree",
        (
            *_onnxq(
                "--target gpu --no-equalize --no-bias-correction --rounding nearest --ranges minmax"
            ),
            *_onnxq("--target gpu --no-equalize"),
            *_onnxq("--target gpu"),
            *_onnxq("--target cpu"),
        ),
    ),
)  # fmt: skip

_STATIC = {"kind": "static", "activations": "uint8"}
_NNCF = {"preset": "performance", "transformer": True}


def _modes(name: str, modes: tuple[Mode, ...]) -> Tool:
    """A tool of the table with other modes."""
    return replace(next(tool for tool in TOOLS if tool.name == name), modes=modes)


TRANSFORMERS = (
    _modes(
        "onnxruntime",
        (
            *_both("dynamic", kind="dynamic"),
            *_channel("static, uint8 activations, minmax", method="MinMax", **_STATIC),
            *_channel("static, uint8 activations, percentile", method="Percentile", **_STATIC),
            *_channel("static, int8 activations, minmax", method="MinMax", kind="static"),
            Mode("MatMulNBits, 8 bits", "blocks", {"kind": "weights", "bits": 8, "block": 128}),
            Mode("MatMulNBits, 4 bits", "blocks", {"kind": "weights", "bits": 4, "block": 32}),
        ),
    ),
    _modes(
        "nncf",
        (
            *_channel("transformer, SmoothQuant, fast bias correction",
                      fast_bias_correction=True, **_NNCF),
            *_channel("transformer, SmoothQuant, full bias correction",
                      fast_bias_correction=False, **_NNCF),
        ),
    ),
    _modes(
        "onnxq",
        (
            *_onnxq("--target cpu --no-equalize")[1:],
            *_onnxq("--target cpu")[1:],
            *_onnxq("--target gpu")[1:],
            *_onnxq("--target cpu --scheme dynamic")[1:],
            *_onnxq("--target cpu --scheme w8 --block-size 128")[1:],
            *_onnxq("--target cpu --scheme w4")[1:],
        ),
    ),
)  # fmt: skip
"""Those that have a mode for transformers of their own; the others were not tried."""

WIDE = (
    _modes(
        "onnxruntime", _channel("uint16 activations, minmax", method="MinMax", activations="uint16")
    ),
    _modes("amd-quark", _channel("int16 activations, minmax", activations="int16", **_QUARK)),
    _modes("aimet-onnx", _channel("int16 activations, min-max", activations="int16")),
    _modes(
        "onnxq",
        (
            *_onnxq("--target qnn")[1:],
            *_onnxq("--target qnn --mixed 10%")[1:],
            *_onnxq("--target qnn --scheme w8a16")[1:],
        ),
    ),
)
"""8-bit weights and 16-bit activations, in the tools that have them."""
