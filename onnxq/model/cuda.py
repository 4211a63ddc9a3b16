"""The CUDA provider: whether it can run here, and whether all nodes run on it."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxq.errors import ModelError, ProviderError
from onnxq.model.onnx_runtime import onnx_runtime
from onnxq.refusal import Refusal

if TYPE_CHECKING:
    import onnxruntime as ort

PROVIDER = "CUDAExecutionProvider"
INSTALL = (
    "pip uninstall --yes onnxruntime onnxruntime-gpu; "
    "pip install 'onnxruntime-gpu[cuda,cudnn]', which runs on the CPU as well"
)
"""Both builds go first: they share a folder, and either takes files of the other along."""

PROVIDER_OPTIONS = {"use_tf32": "0"}
"""TF32 would round operands to 10 bits of mantissa; comparisons need float32."""

NO_FALLBACK = "session.disable_cpu_ep_fallback"

SESSION_OPTIONS = {
    # Keep Q/DQ as they are: the CUDA provider has no fused quantized kernels, and the rewrites put
    # bias DQs on the CPU or merge pairs of different scales (microsoft/onnxruntime#12229, #24807).
    "session.disable_quant_qdq": "1",
    "session.disable_double_qdq_remover": "1",
    "session.record_ep_graph_assignment_info": "1",
    NO_FALLBACK: "1",
}

LIBRARIES = (
    "libcudart.so.{cuda}", "libcublasLt.so.{cuda}", "libcublas.so.{cuda}", "libcurand.so.10",
    "libcudnn.so.9",
)  # fmt: skip
"""What the provider loads on Linux, with the major version of CUDA it was built for."""

VISIBLE = "CUDA_VISIBLE_DEVICES"
HIDDEN = {"", "-1", "NoDevFiles"}
"""What that variable holds where no device may be used."""

NAMED = 5
"""Nodes that a refusal names; it counts the others."""


@dataclass(frozen=True)
class Library:
    """A library of CUDA or cuDNN; `missing` is the loader's complaint, "" where it loads."""

    name: str
    missing: str = ""


def libraries() -> tuple[Library, ...]:
    """Those the provider needs; none where this build of onnxruntime has no CUDA, or off Linux."""
    ort = onnx_runtime()
    major = str(getattr(ort, "cuda_version", "") or "").partition(".")[0]
    if not major or not sys.platform.startswith("linux"):
        return ()
    # It prints what it does not find, on the stdout that --json needs. Libraries in NVIDIA's pip
    # packages are on no search path: once it has loaded them the loader knows their names.
    with contextlib.redirect_stdout(io.StringIO()):
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()
    return tuple(_load(name.format(cuda=major)) for name in LIBRARIES)


def _load(name: str) -> Library:
    try:
        ctypes.CDLL(name)
    except OSError as error:
        return Library(name, str(error))
    return Library(name)


def require_cuda() -> None:
    """Raise `ProviderError` where no CUDA device can be used."""
    ort = onnx_runtime()
    # The device first: without one, another build of onnxruntime is no help.
    if not devices():
        raise ProviderError(
            "there is no CUDA device on this machine",
            hint="run on the CPU, or on a machine with an NVIDIA GPU",
        )
    if PROVIDER not in ort.get_available_providers():
        raise ProviderError("this onnxruntime has no CUDA execution provider", hint=INSTALL)
    check_libraries(libraries())


TENSORRT = ("libnvinfer.so.10", "libnvinfer.so.11")
"""What TensorRT's runtime is, one of them; its pip package has it in a folder of its own."""

TENSORRT_PACKAGES = ("tensorrt_libs", "tensorrt")


def refusal_of_tensorrt() -> Refusal | None:
    """Why TensorRT cannot run here; None where there are a device and its library."""
    if not devices():
        return Refusal("there is no CUDA device on this machine")
    loads = any(not _load(name).missing for name in TENSORRT)
    if loads or any(importlib.util.find_spec(name) is not None for name in TENSORRT_PACKAGES):
        return None
    return Refusal("TensorRT is not installed here")


def devices() -> tuple[str, ...]:
    """The names of NVIDIA's devices that CUDA may use; none without a driver."""
    import pynvml

    if os.environ.get(VISIBLE, "all").strip() in HIDDEN:
        return ()
    try:
        pynvml.nvmlInit()
        try:
            handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
            return tuple(_text(pynvml.nvmlDeviceGetName(handle)) for handle in handles)
        finally:
            pynvml.nvmlShutdown()
    except (pynvml.NVMLError, OSError):
        return ()


def _text(name: str | bytes) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else name


def check_libraries(found: Sequence[Library]) -> None:
    """Raise `ProviderError` where one is missing: ONNX Runtime would run on the CPU instead."""
    missing = [library.name for library in found if library.missing]
    if missing:
        raise ProviderError(
            f"the CUDA execution provider cannot load {', '.join(missing)}", hint=INSTALL
        )


def open_on_cuda(source: bytes | str, options: ort.SessionOptions) -> ort.InferenceSession:
    """A session that runs every node on the CUDA device.

    Raises:
        ProviderError: the provider did not start, so ONNX Runtime fell back to the CPU.
        ModelError: the provider has no kernel for some nodes; they are named.
        Exception: what else ONNX Runtime raises.
    """
    ort = onnx_runtime()
    providers: list[Any] = [(PROVIDER, PROVIDER_OPTIONS)]
    for key, value in SESSION_OPTIONS.items():
        options.add_session_config_entry(key, value)
    try:
        session = ort.InferenceSession(source, options, providers=providers)
    except Exception as error:
        if "assigned to the default CPU EP" not in str(error):
            raise
        # ONNX Runtime says the same where the provider is missing and where a kernel is, and
        # names no node: open it once more to see which it is.
        options.add_session_config_entry(NO_FALLBACK, "0")
        raise _refusal(ort.InferenceSession(source, options, providers=providers)) from None
    if PROVIDER not in session.get_providers() or elsewhere(session):
        raise _refusal(session)
    return session


def _refusal(session: ort.InferenceSession) -> ModelError | ProviderError:
    """Why not all nodes of a session that may fall back to the CPU run on the device."""
    if PROVIDER not in session.get_providers():
        return ProviderError(
            "the CUDA execution provider did not start", hint=f"{INSTALL}; then check nvidia-smi"
        )
    return ModelError(
        f"the CUDA provider would leave {in_words(elsewhere(session)) or 'nodes'} to the CPU",
        hint="use emulate or the CPU provider",
    )


def elsewhere(session: ort.InferenceSession, provider: str = PROVIDER) -> tuple[str, ...]:
    """Operator and name of the nodes that run on another provider.

    None are known before ONNX Runtime 1.24; there its own refusal to fall back has to do. The
    session was opened with `session.record_ep_graph_assignment_info`.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return ()
    return tuple(
        f"{node.op_type} {node.name}".strip()
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name != provider
        for node in part.get_nodes()
    )


def in_words(nodes: Sequence[str]) -> str:
    """The first few, and how many more."""
    more = len(nodes) - NAMED
    return ", ".join(nodes[:NAMED]) + (f" and {more} more" if more > 0 else "")
