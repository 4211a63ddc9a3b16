"""How a model was made, as far as it tells: settings, and the recipe that makes it again."""

from __future__ import annotations

import shlex

from onnxq.model.model import Model
from onnxq.model.recipes import recorded_recipe
from onnxq.quantization.details import MEASURED_ON, SQNR
from onnxq.report.subject import Subject
from onnxq.report.table import count, in_decibels


def remade(reference: Model | None, model: Model) -> tuple[str, str]:
    """The recipe of a model, and the command that makes it again from it; "" where it has none."""
    recipe = recorded_recipe(model)
    if not recipe:
        return "", ""
    command = "quantize" if "\n[quantize]" in recipe else "equalize"
    given = reference.source or reference.name if reference is not None else "MODEL.onnx"
    made = model.source or model.name
    words = ["onnxq", command, str(given), "--recipe", "recipe.toml", "-o", str(made)]
    return recipe, shlex.join(words)


def settings_of(subject: Subject) -> list[tuple[str, str]]:
    """How onnxq made the model, as far as its record tells."""
    record, found = subject.record, []
    settings, options = record.get("settings", {}), record.get("options", {})
    found += [(key, _setting(value)) for key, value in settings.items()]
    if options and not settings:  # a model of 0.1
        found.append(("weights", "per channel" if options.get("per_channel") else "per tensor"))
        found.append(("scales", "powers of two" if options.get("power_of_two") else "float"))
        found += [(key, str(options[key])) for key in ("ranges", "include", "exclude")
                  if options.get(key)]  # fmt: skip
    equalization = record.get("equalization")
    if equalization:
        found.append(("saturating Clips", str(equalization.get("relu6", ""))))
        found.append(("scaled channels", f"{equalization.get('scaled_channels', 0):,}"))
    elif record:
        found.append(("equalization", "none"))
    if SQNR in record and record[SQNR] != "nan":
        seen = (record.get(MEASURED_ON) or {}).get("held_out") is False
        where = " on samples it was made with" if seen else ""
        found.append(("SQNR when it was made", f"{in_decibels(float(record[SQNR]))}{where}"))
    if record.get("centered_activations"):
        found.append(("activations centered", f"{record['centered_activations']:,}"))
    seen = record.get("calibration", {})
    if seen:
        text = count(seen.get("samples", 0), "sample")
        found.append(("calibrated on", ", ".join(filter(None, (text, seen.get("note", ""))))))
        if seen.get("preprocessing"):
            found.append(("preprocessing", seen["preprocessing"]))
    return [(key.replace("_", " ").replace("-", " "), value) for key, value in found]


def _setting(value: object) -> str:
    """An option's value as the page shows it."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return (
        {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    )
