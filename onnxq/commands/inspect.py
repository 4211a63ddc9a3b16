"""Look at a model, whoever quantized it."""

from __future__ import annotations

from dataclasses import dataclass

from onnxq.commands.plan import plan_of
from onnxq.data.random import random_feeds
from onnxq.data.sizes import parse_shapes
from onnxq.errors import DataError, ModelError, ProviderError, UsageError
from onnxq.model.graph import Graph
from onnxq.model.model import Model
from onnxq.model.multiply_adds import multiply_adds
from onnxq.model.normalize import normalize
from onnxq.model.recipes import recorded_recipe
from onnxq.options.inspect import InspectOptions
from onnxq.progress import SILENT, Progress
from onnxq.quantization.account import Account, account_of
from onnxq.quantization.details import Details, details
from onnxq.quantization.plan import QuantizationPlan
from onnxq.refusal import Refusal
from onnxq.shown import Shown
from onnxq.targets import SHIPPED, Target, shipped_targets, target_named
from onnxq.validation.kernels import COUNTED, CPU, Kernel, kernels
from onnxq.validation.lint import Finding, lint


@dataclass(frozen=True, repr=False)
class Inspection(Shown):
    """What a model says of itself, and what is seen of it.

    Attributes:
        details: layers, learnables, what stays in float and why.
        recipe: the recipes that made it, as a TOML file; "" where it carries none.
        findings: rules of a target that it breaks; None where nobody asked.
        rules_of: the target whose rules these are; "" where nobody asked.
        planned: what `quantize` would do to a float model; why that is not known; None for other
            models, and where rules or kernels were asked for.
        kernels: what a runtime runs; None where nobody asked.
        kernels_in: that runtime, by the name of its execution; "" where nobody asked.
    """

    details: Details
    recipe: str
    findings: tuple[Finding, ...] | None = None
    kernels: tuple[Kernel, ...] | None = None
    rules_of: str = ""
    planned: Planned | Refusal | None = None
    kernels_in: str = ""


@dataclass(frozen=True)
class Planned:
    """What `quantize` would do to a float model, by its defaults.

    Attributes:
        graph: of the normalized model.
        account: of layers and multiply-adds; the size is that of the float model.
    """

    graph: Graph
    plan: QuantizationPlan
    account: Account


def inspect(model: Model, options: InspectOptions, progress: Progress = SILENT) -> Inspection:
    """Look at a model; see `onnxq.api.inspect`."""
    found = details(model)
    if found.is_quantized and options.target is not None and not (options.lint or options.kernels):
        raise UsageError(
            f"--target plans float models, and says whose rules --lint checks; {model.name} is "
            "quantized",
            hint="give --lint too",
        )
    plain = not (found.is_quantized or options.lint or options.kernels)
    target = _target(model, found, options) if options.lint else None
    runtime = _runtime(options) if options.kernels else ""
    ran = kernels(model, runtime) if runtime else None
    return Inspection(
        found,
        recorded_recipe(model),
        None if target is None else lint(model, target),
        ran,
        "" if target is None else target.name,
        _planned(model, options, progress) if plain else None,
        runtime,
    )


def _planned(model: Model, options: InspectOptions, progress: Progress) -> Planned | Refusal:
    target, shapes = options.target or SHIPPED[0], options.input_shapes
    try:
        normalized, _ = normalize(model)
        graph = Graph(normalized)
        plan = plan_of(model, graph, target, progress, input_shapes=shapes)
        feeds = random_feeds(normalized, samples=1, shapes=parse_shapes(shapes, model.inputs))[0]
        products = multiply_adds(normalized, feeds)
    except (ModelError, DataError, ProviderError) as error:
        return Refusal(str(error))
    return Planned(graph, plan, account_of(model, normalized, model, plan, products))


def _runtime(options: InspectOptions) -> str:
    """Where kernels are counted: in the runtime of the target named, else on the CPU.

    Raises:
        UsageError: the runtime does not tell its kernels.
    """
    if options.target is None:
        return CPU
    target = target_named(options.target)
    if target.runtime not in COUNTED:
        able = [name for name, each in shipped_targets().items() if each.runtime in COUNTED]
        raise UsageError(
            f"no runtime tells the kernels of target {target.name}",
            hint=f"--kernels counts those of {', '.join(able)}",
        )
    return target.runtime


def _target(model: Model, found: Details, options: InspectOptions) -> Target:
    """The target named, else the one the model was made for, else the default.

    Raises:
        UsageError: the model was made for a target of the user's own, whose file is not named.
    """
    if options.target is not None:
        return target_named(options.target)
    made_for = found.target or SHIPPED[0]
    if made_for not in SHIPPED:
        raise UsageError(
            f"{model.name} was made for the target {made_for!r}, which is none of onnxq's own",
            hint=f"name its file with --target {made_for}.toml",
        )
    return target_named(made_for)
