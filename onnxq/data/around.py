"""A source around another one, of which it changes something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxq.data.batching import BatchAxes
    from onnxq.data.source import DataSource


@dataclass(frozen=True, eq=False)
class SourceAround:
    """All of a `DataSource` but its batches, as the source inside has it."""

    source: DataSource

    @property
    def spec(self) -> str:
        return self.source.spec

    @property
    def count(self) -> int | None:
        return self.source.count

    @property
    def axes(self) -> BatchAxes:
        return self.source.axes

    @property
    def has_labels(self) -> bool:
        return self.source.has_labels

    @property
    def note(self) -> str:
        return self.source.note

    @property
    def preprocessing(self) -> object | None:
        return self.source.preprocessing

    @property
    def fingerprint(self) -> str:
        return self.source.fingerprint

    def sample_name(self, index: int) -> str:
        return self.source.sample_name(index)
