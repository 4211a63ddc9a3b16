"""The names of the commands."""

COMMANDS = (
    "calibrate",
    "merge",
    "equalize",
    "quantize",
    "emulate",
    "validate",
    "inspect",
    "explain",
    "report",
    "doctor",
)
"""In reading order."""
