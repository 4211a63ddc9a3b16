"""What results look like: lines, tables, pages, notebooks.

The package is its public function, too. `onnxq.report` is this package as soon as a module of it is
imported, and the function before; so both can be called.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Report(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Any:
        from onnxq.report.page import report

        return report(*args, **options)


sys.modules[__name__].__class__ = _Report
