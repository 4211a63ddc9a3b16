"""The report: one HTML file that needs nothing else, for any browser, without a network."""

from onnxq.report.html.collect import Report, collect
from onnxq.report.html.render import render

__all__ = ["Report", "collect", "render"]
