"""Exact sums of 8-bit products on CPUs whose own kernels saturate."""

import onnxruntime
from onnxq.cli.machine import cpu_flags, saturates

CPU_SATURATES = bool(cpu_flags()) and saturates(cpu_flags())
"""Whether integer kernels that ONNX Runtime does not replace saturate here."""


class ExactSessionOptions(onnxruntime.SessionOptions):
    """ONNX Runtime's options, with kernels for CPUs without VNNI that do not saturate: it puts
    them in as it optimizes a model.
    """

    def __init__(self):
        super().__init__()
        self.add_session_config_entry("session.x64quantprecision", "1")
