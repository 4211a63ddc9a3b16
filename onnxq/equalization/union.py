"""Disjoint sets over integers, merged by whole arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


class DisjointSets:
    """Grows by `fresh`; element 0 is the pinned set, whose scale is 1.

    The smallest element of a set is its root, so 0 stays the root of the pinned set.
    """

    def __init__(self) -> None:
        self._parent: list[int] = [0]

    def fresh(self, count: int) -> Ids:
        """Ids of `count` new sets of one element each."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return np.arange(start, start + count, dtype=np.int64)

    def find(self, element: int) -> int:
        root = element
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[element] != root:
            self._parent[element], element = root, self._parent[element]
        return root

    def union(self, a: int, b: int) -> None:
        first, second = self.find(a), self.find(b)
        if first != second:
            self._parent[max(first, second)] = min(first, second)

    def union_arrays(self, a: NDArray[Any], b: NDArray[Any]) -> None:
        """Merge elementwise; the arrays are broadcast against each other."""
        pairs = np.stack([array.ravel() for array in np.broadcast_arrays(a, b)], axis=1)
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        for first, second in np.unique(pairs, axis=0).tolist() if len(pairs) else ():
            self.union(first, second)

    def roots(self, ids: NDArray[Any]) -> Ids:
        """The root of each id, in the same shape."""
        unique, inverse = np.unique(ids, return_inverse=True)
        found = np.array([self.find(element) for element in unique.tolist()], np.int64)
        return found[inverse].reshape(ids.shape)
