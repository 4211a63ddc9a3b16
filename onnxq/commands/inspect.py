"""Look at a model, whoever quantized it."""

from __future__ import annotations

from dataclasses import dataclass

from onnxq.model.model import Model
from onnxq.model.recipes import recorded_recipe
from onnxq.options.inspect import InspectOptions
from onnxq.quantization.details import Details, details
from onnxq.validation.kernels import Kernel, kernels
from onnxq.validation.lint import Finding, lint


@dataclass(frozen=True)
class Inspection:
    """What a model says of itself, and what is seen of it.

    Attributes:
        details: layers, learnables, what stays in float and why.
        recipe: the recipes that made it, as a TOML file; "" where it carries none.
        findings: rules of TensorRT that it breaks; None where nobody asked.
        kernels: what ONNX Runtime's CPU provider runs; None where nobody asked.
    """

    details: Details
    recipe: str
    findings: tuple[Finding, ...] | None = None
    kernels: tuple[Kernel, ...] | None = None


def inspect(model: Model, options: InspectOptions) -> Inspection:
    """Look at a model; see `onnxq.api.inspect`."""
    findings = lint(model) if options.lint else None
    ran = kernels(model) if options.kernels else None
    return Inspection(details(model), recorded_recipe(model), findings, ran)
