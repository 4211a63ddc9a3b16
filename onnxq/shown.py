"""Results that show themselves: one line in a shell, tables in a notebook, frames in pandas.

How they look is the business of `onnxq.report`, which comes after all the stages; so it is looked
up when somebody looks.
"""

from __future__ import annotations

import importlib
from typing import Any

_NOTEBOOK = "onnxq.report.notebook"


class Shown:
    """Base of the results that the public functions return."""

    def __repr__(self) -> str:
        text: str = importlib.import_module(_NOTEBOOK).line(self)
        return text

    def _repr_html_(self) -> str:
        text: str = importlib.import_module(_NOTEBOOK).html(self)
        return text

    def to_pandas(self) -> Any:
        """The result's main table as a `pandas.DataFrame`, numbers as numbers.

        Raises:
            UsageError: pandas is not installed.
        """
        return importlib.import_module(_NOTEBOOK).frame(self)
