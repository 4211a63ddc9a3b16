"""Layers raised to more bits or to float, by `--mixed` and `--max-drop`: lines and tables."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from onnxq.quantization.search import FLOAT
from onnxq.report.table import Table, count, number, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxq.quantization.search import Candidate, Criterion, Mixed, Search, Step


def raised_text(layers: Sequence[Candidate]) -> str:
    """How many layers became what, such as "2 layers in w8a16 and 1 layer in float"."""
    numbers = Counter(each.becomes for each in layers) or Counter({FLOAT: 0})
    return " and ".join(f"{count(number, 'layer')} in {name}" for name, number in numbers.items())


def mixed_text(mixed: Mixed) -> str:
    """What sparing the worst layers bought."""
    before, after = mixed.sqnr_before, mixed.sqnr_after
    bought = "" if math.isnan(after) else f": {before:.1f} dB SQNR without, {after:.1f} with"
    return f"--mixed {100 * mixed.share:g}%: {raised_text(mixed.layers)}{bought}"


def mixed_table(mixed: Mixed) -> Table:
    """The layers that were raised, and what each was to buy."""
    return table(
        "Layer | Becomes | >Share of the error (%)",
        [(each.node, each.becomes, f"{each.share:.1f}") for each in mixed.layers],
        title="Layers raised",
    )


def search_text(search: Search) -> str:
    """What the search for layers to raise came to."""
    wanted, best = search.criterion, _best(search)
    verdict = "holds" if search.passed else "fails"
    exact = wanted.float_value
    against = "" if math.isnan(exact) else f" against {_value(exact, wanted)}"
    return (
        f"--max-drop {wanted.max_drop:g} {verdict} with {raised_text(search.kept)}: "
        f"{wanted.metric} {_value(best.value, wanted)}{against}, a drop of "
        f"{number(best.drop, 3)}{wanted.drop_unit and ' ' + wanted.drop_unit}, on "
        f"{count(wanted.samples, 'sample')}; {search.ended}"
    )


def search_table(search: Search) -> Table:
    """The trials, by the number of layers raised: what was added, and what that bought."""
    wanted = search.criterion
    rows = []
    for before, step in zip((None, *search.steps), search.steps, strict=False):
        bought = "" if before is None else f"{before.drop - step.drop:+.2f}"
        rows.append(
            (str(step.kept), "\n".join(step.added), "\n".join(step.becomes),
             _value(step.value, wanted, unit=False), f"{step.drop:.2f}", bought,
             "holds" if step.passed else "fails")
        )  # fmt: skip
    unit = f" ({wanted.drop_unit})" if wanted.drop_unit else ""
    head = f"{wanted.metric} ({wanted.unit})" if wanted.unit else wanted.metric
    return table(
        f">Raised | Added | Becomes | >{head} | >Drop{unit} | >Bought{unit} | Verdict",
        rows,
        title="Layers raised, step by step",
    )


def _best(search: Search) -> Step:
    """The step of the result, as `search` chooses it."""
    if search.passed:
        return next(step for step in search.steps if step.passed)
    return min(search.steps, key=lambda step: (step.drop, step.kept))


def _value(value: float, wanted: Criterion, *, unit: bool = True) -> str:
    digits = f"{value:.1f}" if wanted.unit == "dB" else f"{value:.2f}"
    return f"{digits} {wanted.unit}".rstrip() if unit else digits
