"""How close each output is to the float model's: rows of a table, elements of a document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxq.report.table import decibels_within, number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnxq.closeness import OutputCloseness


def output_rows(output: OutputCloseness) -> Iterator[tuple[str, ...]]:
    """Cells of the output, and of each of its groups."""
    whole, other = output.whole, f"{output.other_shape:.3g}"
    yield (
        output.name, decibels_within(whole.sqnr, whole.sqnr_error), number(whole.cosine, 6),
        number(output.largest_error, 3), number(output.equal, 4), other,
    )  # fmt: skip
    for part in output.groups:
        sqnr = decibels_within(part.sqnr, part.sqnr_error)
        yield (part.label, sqnr, number(part.cosine, 6), "", "", "")


def output_document(output: OutputCloseness) -> dict[str, Any]:
    """One element of `outputs` in a document."""
    return {
        "name": output.name,
        "type": "float" if output.is_float else "other",
        "sqnr_db": output.whole.sqnr,
        "sqnr_error_db": output.whole.sqnr_error,
        "cosine": output.whole.cosine,
        "largest_error": output.largest_error,
        "equal_percent": output.equal,
        "other_shape_percent": output.other_shape,
        "groups": [
            {"axis": part.axis, "slices": part.slices, "rms": part.rms, "sqnr_db": part.sqnr,
             "sqnr_error_db": part.sqnr_error, "cosine": part.cosine}
            for part in output.groups
        ],
    }  # fmt: skip
