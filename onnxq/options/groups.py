"""Groups of options, under which help shows them: by their names, the same in every command."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

GROUPS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "Data": frozenset(
            {
                "data", "calibration", "preprocess", "tokenizer", "samples", "states",
                "input_shapes", "mask", "labels", "classes", "allow_nonfinite", "validate_data",
                "shard",
            }
        ),
        "What it becomes": frozenset(
            {
                "target", "scheme", "schemes", "weights", "block_size", "mixed", "table_bits",
                "scale", "scales", "rest", "head", "include", "exclude", "exclude_operators",
                "allow_none",
            }
        ),
        "How": frozenset(
            {
                "equalize", "absorb_bias", "relu6", "ranges", "gradients", "bias_correction",
                "rounding", "effort",
            }
        ),
        "What is measured": frozenset(
            {
                "metrics", "executions", "execution", "outputs", "layers", "latency", "profile",
                "compare", "speed", "lint", "kernels",
            }
        ),
        "Gates": frozenset(
            {"max_drop", "min_accuracy", "max_trials", "max_minutes", "budget", "junit"}
        ),
        "Machine": frozenset(
            {
                "batch_size", "memory", "threads", "providers", "provider", "seconds",
                "dask", "resume", "libraries",
            }
        ),
    }
)  # fmt: skip
"""Heading → names of options. What is in none is under "Output": files, formats, words."""

OTHERS = "Output"


def group_of(name: str) -> str:
    """The heading of an option."""
    return next((heading for heading, names in GROUPS.items() if name in names), OTHERS)
