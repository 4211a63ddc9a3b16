"""What the doctor looks at: installed versions, providers, CUDA, CPU features."""

from __future__ import annotations

import ctypes
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CPU_INFO = Path("/proc/cpuinfo")

DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""CPU features with 8-bit products that add up in 32 bits."""

SATURATES = (
    "u8s8 products add up in 16 bits here and saturate: ONNX Runtime's integer results on this CPU "
    "can differ from other machines and from --execution emulate. For such CPUs quantize with "
    "--target cpu --scheme w7a8, whose sums fit; --execution saturate shows on any machine what "
    "they make of a model. ONNX Runtime's session option session.x64quantprecision=1 avoids it "
    "with slower kernels"
)
EXACT = "u8s8 products add up in 32 bits here: --execution cpu shows what the model computes"
UNKNOWN = "whether u8s8 products saturate here is unknown: compare --execution cpu with emulate"

SLOWER = "calibration counts in numpy: pip install 'onnxq[fast]' makes it faster, same results"


@dataclass(frozen=True)
class Finding:
    """One thing found; `implies` says what it means for quantized models, "" where nothing."""

    name: str
    found: str
    implies: str = ""


def examine() -> tuple[Finding, ...]:
    """Look at everything; nothing that is missing is an error."""
    return (
        Finding("onnxq", _version("onnxq")),
        Finding("python", f"{platform.python_version()} on {platform.platform()}"),
        *_packages(),
        *_providers(),
        _cpu(),
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _packages() -> Iterator[Finding]:
    for package in ("numpy", "onnx", "onnx-graphsurgeon"):
        yield Finding(package, _version(package))
    numba = _version("numba")
    yield Finding("numba", numba, SLOWER if numba == "not installed" else "")
    builds = {name: _version(name) for name in ("onnxruntime", "onnxruntime-gpu")}
    there = {name: version for name, version in builds.items() if version != "not installed"}
    both = len(there) > 1
    yield Finding(
        "onnxruntime",
        ", ".join(f"{version} ({name})" for name, version in there.items()) or "not installed",
        "two builds overwrite each other: pip uninstall both, then install one" if both else "",
    )


def _providers() -> Iterator[Finding]:
    from onnxq.errors import ProviderError
    from onnxq.model.cuda import require_cuda

    try:
        import onnxruntime
    except Exception as error:  # noqa: BLE001 - of a half-removed package anything may come
        yield Finding("providers", "none", f"onnxruntime cannot be imported: {error}")
        return
    if not hasattr(onnxruntime, "get_available_providers"):
        # What pip leaves where two builds shared the folder and one was removed.
        yield Finding("providers", "none", "onnxruntime is there in part: install it again")
        return
    yield Finding("providers", ", ".join(onnxruntime.get_available_providers()))
    yield from _cuda_libraries()
    try:
        require_cuda()
    except ProviderError as error:
        yield Finding("cuda", "not usable", f"{error.message}: {error.hint}")
        return
    yield Finding("cuda", cuda_device() or "a device")


def _cuda_libraries() -> Iterator[Finding]:
    """CUDA and cuDNN, as far as this build of onnxruntime wants them."""
    from onnxq.model.cuda import INSTALL, libraries

    wanted = libraries()
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


def cuda_device() -> str:
    """Name of the first CUDA device; "" where the driver does not tell."""
    name = ctypes.create_string_buffer(256)
    device = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        ready = driver.cuInit(0) == 0 and driver.cuDeviceGet(ctypes.byref(device), 0) == 0
        ready = ready and driver.cuDeviceGetName(name, len(name), device) == 0
    except OSError:
        return ""
    return name.value.decode(errors="replace") if ready else ""


def _cpu() -> Finding:
    flags = cpu_flags()
    if not flags:
        return Finding("cpu", f"{platform.machine()}, features unknown", UNKNOWN)
    known = [flag for flag in DOT_PRODUCTS if flag in flags]
    others = [flag for flag in ("avx2", "avx512f", "asimd") if flag in flags]
    found = f"{platform.machine()}: {', '.join(others + known) or 'neither AVX2 nor VNNI'}"
    # On Arm the products are widened before they are added, so none saturates.
    exact = bool(known) or platform.machine() in {"aarch64", "arm64"}
    return Finding("cpu", found, EXACT if exact else SATURATES)


def cpu_flags() -> frozenset[str]:
    """CPU features as Linux names them; empty where it does not tell."""
    try:
        lines = CPU_INFO.read_text(errors="replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip().lower() in {"flags", "features"}:
            return frozenset(value.split())
    return frozenset()
