"""The page on models, from what a user has: the public function of this package."""

from __future__ import annotations

import html as markup
from typing import TYPE_CHECKING

from onnxq.calibration.statistics import Calibration
from onnxq.commands.inputs import Data, ModelLike, Models, PathLike, Preprocess, as_model, as_models
from onnxq.options.report import ReportKeywords, ReportOptions
from onnxq.options.signature import takes
from onnxq.progress import Listener, as_progress
from onnxq.report.html.collect import Report, collect
from onnxq.report.html.render import render

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Page(str):
    """A page, HTML as text; a notebook shows it inline."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        inside = markup.escape(str(self), quote=True)
        return (
            f'<iframe srcdoc="{inside}" title="onnxq report" '
            'style="width:100%;height:48em;border:1px solid #8884"></iframe>'
        )


@takes(ReportOptions, ReportKeywords)
def report(
    model: ModelLike,
    quantized: Models = (),
    *,
    calibration: Calibration | PathLike | None = None,
    data: Data | None = None,
    preprocess: Preprocess | None = None,
    progress: Listener = None,
    **options: Unpack[ReportKeywords],
) -> tuple[Page, Report]:
    """Compare a float model and those made from it on a page: verdict, layers, graph, sizes.

    Without data nothing is measured. A calibration gives the histograms; so do data.

    Returns:
        The page, HTML that needs no network (a notebook shows it inline), and what it shows.

    Raises:
        UsageError: a wrong option, or one that needs data.
        DataError: the data do not fit, or the calibration is of another model.
    """
    chosen = ReportOptions.of(options, calibration=calibration, data=data, preprocess=preprocess)
    found = collect(as_model(model), as_models(quantized), chosen, as_progress(progress))
    return Page(render(found)), found
