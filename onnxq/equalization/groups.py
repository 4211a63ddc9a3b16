"""Scale classes as people see them: tensors scaled together, and who absorbs the scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.equalization.clips import Variables
from onnxq.equalization.sites import ScaleClasses
from onnxq.equalization.union import DisjointSets


@dataclass(frozen=True)
class Group:
    """A scale class as people see it: the tensors whose channels share variables."""

    tensors: tuple[str, ...]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    roots: tuple[int, ...]


def joined_groups(classes: ScaleClasses, variables: Variables) -> tuple[Group, ...]:
    """Join the classes that appear in one tensor; one group for each connected set."""
    sets = DisjointSets()
    free = sorted(variables.of)
    position = {root: index for index, root in enumerate(free, start=1)}
    sets.fresh(len(free))

    def joined(ids: NDArray[np.int64]) -> set[int]:
        return {position[i] for i in set(ids.ravel().tolist()) if i in position}

    for pattern in (*classes.patterns.values(), *(site.output_ids for site in classes.linears)):
        members = sorted(joined(pattern))
        for member in members[1:]:
            sets.union(members[0], member)

    found: dict[int, dict[str, list[Any]]] = {}

    def note(ids: NDArray[np.int64], kind: str, name: str) -> None:
        for member in {sets.find(i) for i in joined(ids)}:
            entry = found.setdefault(member, {"tensors": [], "producers": [], "consumers": []})
            entry[kind].append(name)

    for tensor, pattern in classes.patterns.items():
        note(pattern, "tensors", tensor)
    for site in classes.linears:
        note(site.output_ids, "producers", site.node.name)
        note(site.input_ids, "consumers", site.node.name)
    roots: dict[int, list[int]] = {}
    for root, index in position.items():
        roots.setdefault(sets.find(index), []).append(root)
    return tuple(
        Group(
            tuple(entry["tensors"]), tuple(entry["producers"]), tuple(entry["consumers"]),
            tuple(roots[member]),
        )
        for member, entry in found.items()
    )  # fmt: skip
