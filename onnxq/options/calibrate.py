"""The options of `onnxq calibrate` and `onnxq.calibrate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from onnxq.errors import UsageError
from onnxq.options import shared
from onnxq.options.fields import flag, option
from onnxq.options.reading import ReadingKeywords, ReadingOptions
from onnxq.options.shared import Provider, ProviderName
from onnxq.options.values import File, Part

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions(ReadingOptions):
    """How to look at the values of a model's tensors.

    `memory` is in bytes, 0 for the default; `state` is the file for the state of the run, to go on
    from with `resume`.
    """

    command: ClassVar[str] = "calibrate"

    mask: str | None = shared.mask()
    batch_size: int = shared.batch_size()
    shard: tuple[int, int] = option(
        Part(), "Run only the I-th of N parts; onnxq merge joins them.", (1, 1), metavar="I/N"
    )
    dask: str | None = shared.dask()
    gradients: bool = flag(
        "Measure what errors of each tensor cost at the outputs too: quantize chooses ranges by it "
        "where it has no data."
    )
    calibration: Any = shared.calibration(
        "Measure nothing but --gradients, and add them to this calibration, such as one that "
        "onnxq merge wrote."
    )
    memory: int = shared.memory()
    state: Path | None = option(File(), "File for the state of the run.", flag=None)
    resume: bool = flag("Go on where a killed run with the same output stopped.")
    libraries: tuple[Path, ...] = shared.libraries()
    provider: Provider = shared.provider()
    allow_nonfinite: bool = shared.allow_nonfinite()

    def check(self) -> None:
        if self.gradients and self.shard != (1, 1):
            raise UsageError(
                "--gradients does not go with --shard",
                hint="outputs are compared with how they vary over all of the data: merge the "
                "shards, then onnxq calibrate --gradients --calibration ALL.calib",
            )
        if self.calibration is not None:
            self._check_added()
        if self.dask is not None and (self.resume or self.state is not None):
            raise UsageError(
                "--dask does not go with --resume",
                hint="a Dask cluster takes the place of a state to resume from",
            )

    def _check_added(self) -> None:
        if not self.gradients:
            raise UsageError(
                "--calibration has nothing to add to it", hint="give --gradients, or leave it out"
            )
        if self.dask is not None or self.resume:
            other = "--resume" if self.resume else "--dask"
            raise UsageError(
                f"--calibration does not go with {other}", hint="no pass over the data is made"
            )


class CalibrateKeywords(ReadingKeywords, total=False):
    """The options of `onnxq.calibrate` for editors; a test holds them to `CalibrateOptions`."""

    mask: str | None
    batch_size: int
    shard: tuple[int, int] | str
    dask: str | None
    gradients: bool
    memory: int | str
    state: str | os.PathLike[str] | None
    resume: bool
    libraries: Sequence[str | os.PathLike[str]]
    provider: Provider | ProviderName
    allow_nonfinite: bool
