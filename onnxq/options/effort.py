"""How much is tried for accuracy, and on how many samples: a row for each `--effort`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Effort:
    """What one quantization may cost.

    Attributes:
        meaning: for people, of what sets it apart.
        settling: samples that settle layers.
        positions: at which a layer that settles should be seen: samples of a few, as short texts
            are, are taken until they have as many.
        most: samples that settle layers, however few positions they have.
        gradients: samples whose gradients weigh ranges.
        alone: samples on which the narrower range of one tensor is tried: what is compared is the
            same but for it. 0 where none is tried.
        trials: samples that settle layers where ways to prepare the model are tried; 0 where none
            is tried, and the one expected to be best is taken.
        rounds_trials: whether weights are rounded for their layers there too.
        names_worst: whether the layers are named that cost most, where a model comes out bad.
    """

    meaning: str
    settling: int
    positions: int
    most: int
    gradients: int
    alone: int
    trials: int
    rounds_trials: bool = False
    names_worst: bool = True


EFFORTS: Mapping[str, Effort] = MappingProxyType(
    {
        "fast": Effort(
            "few samples, and nothing tried",
            settling=64, positions=4096, most=512, gradients=64, alone=0, trials=0,
            names_worst=False,
        ),
        # 224 sentences in place of 112 brought MiniLM 0.6 dB; more images bring little.
        "default": Effort(
            "what pays", settling=128, positions=8192, most=1024, gradients=64, alone=16, trials=32
        ),
        "best": Effort(
            "more samples, and trials with rounded weights",
            settling=512, positions=32768, most=4096, gradients=256, alone=64, trials=128,
            rounds_trials=True,
        ),
    }
)  # fmt: skip
"""Name → row, the cheapest first."""

DEFAULT_EFFORT = "default"
USUAL = EFFORTS[DEFAULT_EFFORT]
