"""Qualcomm's QNN provider: the HTP of a device, or its simulator on an x86 machine with Linux.

A package of its own, onnxruntime-qnn, brings both as a plug-in of ONNX Runtime.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxq.errors import ModelError, ProviderError

if TYPE_CHECKING:
    import onnxruntime as ort

PROVIDER = "QNNExecutionProvider"
PACKAGE = "onnxruntime_qnn"
INSTALL = "in an environment of its own: pip install onnxruntime-qnn"

SESSION_OPTIONS = {"session.record_ep_graph_assignment_info": "1"}

SIMULATED = {"soc_model": "60"}
"""The chip that the simulator stands for, by QNN's number: by itself it takes one whose memory
attention in 16 bits exhausts. A device knows what it is."""


def open_on_qnn(
    source: bytes | str, options: ort.SessionOptions, dump: Path | None
) -> ort.InferenceSession:
    """A session that runs what the HTP takes there, and the rest on the CPU.

    Args:
        dump: a folder to which the provider writes the graphs that it makes, as JSON.

    Raises:
        ProviderError: the package is missing, or the provider does not start.
        ModelError: the HTP takes no node.
        Exception: what else ONNX Runtime raises.
    """
    import onnxruntime as ort

    with _stdout_kept():
        device = _device(ort)
        for key, value in SESSION_OPTIONS.items():
            options.add_session_config_entry(key, value)
        wanted = {"backend_type": "htp"}
        if sys.platform == "linux" and platform.machine() == "x86_64":
            wanted |= SIMULATED
        if dump is not None:
            wanted |= {"dump_json_qnn_graph": "1", "json_qnn_graph_dir": str(dump)}
        options.add_provider_for_devices([device], wanted)
        session = ort.InferenceSession(source, options)
    if PROVIDER not in session.get_providers() or not _taken(session):
        raise ModelError(
            "QNN takes none of the model's nodes, all would run on the CPU",
            hint="it takes models with fixed sizes that are quantized for it: onnxq quantize "
            "--target qnn --input-shape 1x3x224x224",
        )
    return session


def _taken(session: ort.InferenceSession) -> bool:
    return any(part.ep_name == PROVIDER for part in session.get_provider_graph_assignment_info())


def _device(ort: Any) -> Any:
    """The device of the provider, which is registered once in a process."""
    if importlib.util.find_spec(PACKAGE) is None:
        raise ProviderError("QNN needs the package onnxruntime-qnn", hint=INSTALL)
    if not hasattr(ort, "get_ep_devices"):
        raise ProviderError(f"QNN needs a newer ONNX Runtime than {ort.__version__}", hint=INSTALL)
    found = _devices(ort)
    if not found:
        library = importlib.import_module(PACKAGE).get_library_path()
        try:
            ort.register_execution_provider_library(PROVIDER, library)
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's have no base class of their own
            said = " ".join(str(error).split())[:200]
            raise ProviderError(f"the QNN provider does not start: {said}", hint=INSTALL) from None
        found = _devices(ort)
    if not found:
        raise ProviderError("the QNN provider finds no device, and no simulator", hint=INSTALL)
    return found[0]


def _devices(ort: Any) -> list[Any]:
    return [each for each in ort.get_ep_devices() if each.ep_name == PROVIDER]


@contextmanager
def _stdout_kept() -> Iterator[None]:
    """What the libraries print on stdout, which --json needs, goes nowhere."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
