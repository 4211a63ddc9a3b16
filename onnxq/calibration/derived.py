"""Statistics that follow from others, each worked out when it is first asked for.

Moving the histograms of a large model takes as long as its inference, and few of them are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from onnxq.calibration.statistics import TensorStatistics


class Derived(Mapping[str, TensorStatistics]):
    """Tensor name → what a function makes of it.

    Args:
        names: of the tensors.
        derive: name → statistics, always the same.
    """

    def __init__(self, names: Iterable[str], derive: Callable[[str], TensorStatistics]) -> None:
        self._names = dict.fromkeys(names)
        self._derive = derive
        self._found: dict[str, TensorStatistics] = {}

    def __getitem__(self, name: str) -> TensorStatistics:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._found:
            self._found[name] = self._derive(name)
        return self._found[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
