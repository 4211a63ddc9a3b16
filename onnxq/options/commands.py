"""The names of the commands."""

COMMANDS = (
    "calibrate",
    "merge",
    "equalize",
    "quantize",
    "tune",
    "emulate",
    "validate",
    "bench",
    "inspect",
    "explain",
    "report",
    "doctor",
    "completion",
)
"""In reading order."""
