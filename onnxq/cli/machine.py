"""What the doctor looks at: installed versions, providers, CUDA, CPU features."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata

from onnxq import __version__
from onnxq.errors import OnnxqError

DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""CPU features with 8-bit products that add up in 32 bits."""

SATURATES = (
    "u8s8 products add up in 16 bits here and saturate: integer results of ONNX Runtime and "
    "OpenVINO on this CPU can differ from other machines and from --execution emulate. For such "
    "CPUs quantize with --scheme w7a8, which --target cpu and openvino take and whose sums fit; "
    "--execution saturate shows on any machine what they make of a model. ONNX Runtime's session "
    "option session.x64quantprecision=1 avoids it with slower kernels"
)
EXACT = "u8s8 products add up in 32 bits here: --execution cpu shows what the model computes"
UNKNOWN = "whether u8s8 products saturate here is unknown: compare --execution cpu with emulate"

SLOWER = "calibration counts in numpy: pip install numba makes it faster, same results"

MISSING = "not installed"


@dataclass(frozen=True)
class Finding:
    """One thing found; `implies` says what it means for quantized models, "" where nothing."""

    name: str
    found: str
    implies: str = ""


@dataclass(frozen=True)
class Verdict:
    """Whether onnxq can work here at all; `text` says so in one line, and what CUDA would need."""

    ready: bool
    text: str


def examine() -> tuple[Finding, ...]:
    """Look at everything; nothing that is missing, or that cannot be looked at, is an error."""
    return (
        Finding("onnxq", __version__),
        *_seen("python", _python),
        *_seen("packages", _packages),
        *_seen("onnxruntime", _builds),
        *_seen("providers", _providers),
        *_seen("cuda libraries", _cuda_libraries),
        *_seen("cuda", _cuda),
        *_seen("cpu", lambda: [_cpu()]),
    )


def judge() -> Verdict:
    """Whether models for `cpu` can be made and run here, and on CUDA."""
    from onnxq.model.cuda import require_cuda
    from onnxq.model.onnx_runtime import onnx_runtime

    missing = _refusal_of(onnx_runtime)
    if missing:
        return Verdict(ready=False, text=f"ready for --target cpu: no: {missing}")
    cuda = _refusal_of(require_cuda)
    other = f"no: {cuda}" if cuda else "yes"
    return Verdict(ready=True, text=f"ready for --target cpu: yes; for --execution cuda: {other}")


def _refusal_of(needed: Callable[[], object]) -> str:
    """Why something cannot be had, in one line; "" where it can."""
    try:
        needed()
    except OnnxqError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - drivers and half-removed packages raise anything
        return f"{type(error).__name__}: {error}"
    return ""


def _seen(name: str, look: Callable[[], Iterable[Finding]]) -> tuple[Finding, ...]:
    """What was found; where looking itself fails, that."""
    found: list[Finding] = []
    reason = _refusal_of(lambda: found.extend(look()))
    return (*found, Finding(name, f"unknown: {reason}")) if reason else tuple(found)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return MISSING


def _python() -> Iterable[Finding]:
    yield Finding("python", f"{platform.python_version()} on {platform.platform()}")


def _packages() -> Iterable[Finding]:
    for package in ("numpy", "onnx", "onnx-graphsurgeon"):
        yield Finding(package, _version(package))
    numba = _version("numba")
    yield Finding("numba", numba, SLOWER if numba == MISSING else "")


def _builds() -> Iterable[Finding]:
    """Every package that brings a module `onnxruntime`."""
    names = sorted(set(metadata.packages_distributions().get("onnxruntime", ())))
    advice = (
        f"two builds overwrite each other: pip uninstall --yes {' '.join(names)}, "
        "then pip install the one you want"
    )
    yield Finding(
        "onnxruntime",
        ", ".join(f"{_version(name)} ({name})" for name in names) or MISSING,
        advice if len(names) > 1 else "",
    )


def _providers() -> Iterable[Finding]:
    from onnxq.model.onnx_runtime import onnx_runtime

    try:
        found = onnx_runtime().get_available_providers()
    except OnnxqError as error:
        yield Finding("providers", "none", str(error))
        return
    yield Finding("providers", ", ".join(found))


def _cuda() -> Iterable[Finding]:
    """The devices, where they can be used; otherwise why not."""
    from onnxq.model.cuda import devices, require_cuda

    reason = _refusal_of(require_cuda)
    yield Finding("cuda", "not usable", reason) if reason else Finding("cuda", ", ".join(devices()))


def _cuda_libraries() -> Iterable[Finding]:
    """CUDA and cuDNN, as far as this build of onnxruntime wants them and a device is there."""
    from onnxq.model.cuda import INSTALL, devices, libraries

    wanted = libraries() if devices() else ()
    if not wanted:
        return
    missing = [library.name for library in wanted if library.missing]
    there = [library.name for library in wanted if not library.missing]
    yield Finding(
        "cuda libraries",
        "; ".join(
            f"{state} {', '.join(names)}"
            for state, names in (("found", there), ("missing", missing))
            if names
        ),
        f"--execution cuda needs the missing ones: {INSTALL}" if missing else "",
    )


def _cpu() -> Finding:
    flags = cpu_flags()
    if not flags:
        return Finding("cpu", f"{platform.machine()}, features unknown", UNKNOWN)
    known = [flag for flag in DOT_PRODUCTS if flag in flags]
    others = [flag for flag in ("avx2", "avx512f", "asimd") if flag in flags]
    found = f"{platform.machine()}: {', '.join(others + known) or 'neither AVX2 nor VNNI'}"
    return Finding("cpu", found, SATURATES if saturates(flags) else EXACT)


def saturates(flags: frozenset[str]) -> bool:
    """Whether a CPU with these features adds products of uint8 and int8 in 16 bits."""
    # On Arm the products are widened before they are added, so none saturates.
    exact = not flags.isdisjoint(DOT_PRODUCTS) or platform.machine() in {"aarch64", "arm64"}
    return not exact


def cpu_flags() -> frozenset[str]:
    """CPU features as Linux names them; empty where the system does not tell."""
    from archspec.cpu.detect import detected_info

    try:
        return frozenset(detected_info().features)
    except Exception:  # noqa: BLE001 - on a machine it does not know it may raise anything
        return frozenset()
