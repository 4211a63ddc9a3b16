#!/usr/bin/env python3
"""Rewrite the generated parts of docs/: help texts, options, operator tables, targets, decoders.

A part lies between `<!-- generated: NAME -->` and `<!-- end generated -->`.

    python scripts/generate_docs.py           # rewrite them
    python scripts/generate_docs.py --check   # exit 1 if one is out of date
"""

from __future__ import annotations

import ast
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from click.testing import CliRunner
from onnxq.cli.group import COMMANDS
from onnxq.cli.group import onnxq as command_line
from onnxq.data.settings import PRESETS
from onnxq.formats.scheme import PRESETS as SCHEMES
from onnxq.formats.table import FORMATS, Floating, Format
from onnxq.model import operators
from onnxq.model.backward import BACKWARD, Backward
from onnxq.model.operators import OPERATORS, IntegerForm, Operator, QuantizedRule, ScaleRule
from onnxq.options.bench import BenchKeywords, BenchOptions
from onnxq.options.calibrate import CalibrateKeywords, CalibrateOptions
from onnxq.options.emulate import EmulateKeywords, EmulateOptions
from onnxq.options.equalize import EqualizeKeywords, EqualizeOptions
from onnxq.options.fields import Option, Options, options_of
from onnxq.options.quantize import QuantizeKeywords, QuantizeOptions
from onnxq.options.signature import default_of, values_of
from onnxq.options.tune import TuneKeywords, TuneOptions
from onnxq.options.validate import ValidateKeywords, ValidateOptions
from onnxq.targets import Placement, Shapes, Target, shipped_targets
from onnxq.validation.lint import RULES
from onnxq.validation.tasks.decoders import DECODERS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
HELP_WIDTH = 88

PART = re.compile(
    r"(<!-- generated: (?P<name>[a-z0-9 -]+) -->\n)(?P<text>.*?)(<!-- end generated -->)", re.DOTALL
)


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def code(values: Iterable[str]) -> str:
    return ", ".join(f"`{value}`" for value in values) or "–"


# --- help texts ------------------------------------------------------------------------------


def help_text(command: str) -> str:
    """What `onnxq COMMAND --help` prints, or `onnxq --help` for ""."""
    arguments = [command, "--help"] if command else ["--help"]
    result = CliRunner().invoke(
        command_line, arguments, terminal_width=HELP_WIDTH, max_content_width=HELP_WIDTH
    )
    return f"```text\n{result.stdout.rstrip()}\n```\n"


# --- operators -------------------------------------------------------------------------------


def meanings(enumeration: str) -> dict[str, str]:
    """Member → the string that follows it in onnxq/model/operators.py."""
    tree = ast.parse(Path(operators.__file__).read_text(encoding="utf-8"))
    body = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == enumeration).body
    found = {}
    for member, text in itertools.pairwise(body):
        if isinstance(member, ast.Assign) and isinstance(text, ast.Expr):
            (name,) = member.targets
            assert isinstance(name, ast.Name)
            found[name.id] = " ".join(ast.literal_eval(text.value).split())
    return found


def rule_table(
    enumeration: type[ScaleRule | QuantizedRule | IntegerForm], rule: Callable[[Operator], object]
) -> str:
    texts = meanings(enumeration.__name__)
    return markdown_table(
        ("rule", "meaning", "operators"),
        (
            (
                f"**{member.value}**",
                texts[member.name],
                code(row.op_type for row in OPERATORS.values() if rule(row) is member),
            )
            for member in enumeration
        ),
    )


def on_target(row: Operator, target: Target) -> str:
    """What a target makes of an operator where its attributes and neighbours allow it."""
    if row.op_type in target.weighted:
        return "quantized"
    if row.quantized is QuantizedRule.SHARED:
        return "passes on"
    if target.placement is Placement.ALL and row.op_type in target.own:
        return "quantized"
    if row.fuses:
        return "fused"
    return "residual branch" if row.op_type in target.residual else "float"


def operator_table() -> str:
    return markdown_table(
        ("operator", "channel scale", "quantized", *(f"`{name}`" for name in shipped_targets())),
        (
            (
                f"`{row.op_type}`",
                row.scale.value,
                row.quantized.value,
                *(on_target(row, target) for target in shipped_targets().values()),
            )
            for row in OPERATORS.values()
        ),
    )


def gradient_table() -> str:
    return markdown_table(
        ("rule", "operators"),
        (
            (f"**{rule.value}**", code(name for name, found in BACKWARD.items() if found is rule))
            for rule in Backward
            if rule is not Backward.NONE
        ),
    )


# --- options ---------------------------------------------------------------------------------


def option_table(options: type[Options], keywords: type) -> str:
    """The keywords of a public function; choices and defaults as they are written."""

    def default(each: Option) -> str:
        value = default_of(each)
        return "" if value is None or value == () else f"`{json.dumps(value)}`"

    return markdown_table(
        ("keyword", "values", "default", "meaning"),
        (
            (f"`{name}`", values_of(each), default(each), each.help.split("  [default")[0])
            for name, each in options_of(options).items()
            if name in keywords.__annotations__
        ),
    )


# --- lint, targets, presets ------------------------------------------------------------------


def lint_table() -> str:
    targets = shipped_targets()
    return markdown_table(
        ("rule", "what to do where it is broken", "holds for"),
        (
            (
                f"`{r.id}`",
                r.advice,
                ", ".join(f"`{n}`" for n, t in targets.items() if r.id in t.lint),
            )
            for r in RULES
        ),
    )


def format_table() -> str:
    def numbers(row: Format) -> str:
        if isinstance(row.grid, Floating):
            return f"±{row.grid.highest:g}, {row.grid.exponent} + {row.grid.mantissa} bits"
        return f"{row.grid.lowest} … {row.grid.highest}"

    return markdown_table(
        ("format", "bits", "numbers", "zero point", "from opset"),
        (
            (f"`{row}`", str(row.bits), numbers(row), "yes" if row.zero_point else "no",
             str(row.opset))
            for row in FORMATS.values()
        ),
    )  # fmt: skip


def scheme_table() -> str:
    def cell(name: str, target: Target) -> str:
        row = target.schemes.get(name)
        if row is None:
            return "–"
        found = row.scheme.formats
        spec = row.scheme.rounded
        kind = "" if spec is None else (", symmetric" if spec.symmetric else ", asymmetric")
        kind += " by run" if row.scheme.is_dynamic else ""
        return f"{found['weights']} × {found['activations']}{kind}; bias {found['biases']}"

    return markdown_table(
        ("`--scheme`", "", *(f"`{name}`" for name in shipped_targets())),
        (
            (f"`{name}`", preset.meaning, *(cell(name, t) for t in shipped_targets().values()))
            for name, preset in SCHEMES.items()
        ),
    )


def target_table() -> str:
    facts: tuple[tuple[str, Callable[[Target], str]], ...] = (
        ("runs on", lambda t: t.runs_on),
        ("schemes", lambda t: code(t.schemes)),
        ("weights", lambda _: "symmetric without the lowest number, per channel or per tensor"),
        ("one scale for the whole weight", lambda t: code(sorted(t.one_weight_scale))),
        ("Q/DQ on", lambda t: "weighted inputs and residual branches" if t.placement is Placement.INPUTS
         else "inputs and outputs of every integer kernel"),
        ("weighted operators", lambda t: code(sorted(t.weighted))),
        ("other integer operators", lambda t: code(sorted(t.own))),
        ("products of activations", lambda t: code(sorted(t.products))),
        ("residual operators", lambda t: code(sorted(t.residual))),
        ("sizes of inputs", lambda t: {Shapes.ANY: "any", Shapes.BATCH: "a fixed number of samples",
                                       Shapes.STATIC: "fixed"}[t.shapes]),
        ("`--execution` that runs it", lambda t: code(filter(None, [t.runtime]))),
    )  # fmt: skip
    return markdown_table(
        ("", *(f"`{name}`" for name in shipped_targets())),
        (
            (label, *(fact(target) for target in shipped_targets().values()))
            for label, fact in facts
        ),
    )


def preset_table() -> str:
    return markdown_table(
        ("preset", "is short for"),
        (
            (f"`{name}`", f"`{','.join(f'{key}={value}' for key, value in pairs.items())}`")
            for name, pairs in PRESETS.items()
        ),
    )


OPTIONS: tuple[tuple[type[Options], type], ...] = (
    (CalibrateOptions, CalibrateKeywords),
    (EqualizeOptions, EqualizeKeywords),
    (QuantizeOptions, QuantizeKeywords),
    (TuneOptions, TuneKeywords),
    (ValidateOptions, ValidateKeywords),
    (BenchOptions, BenchKeywords),
    (EmulateOptions, EmulateKeywords),
)


def decoder_table() -> str:
    rows = (
        [code(decoder.names), decoder.layout, "yes" if decoder.overlapping else "no"]
        for decoder in DECODERS
    )
    return markdown_table(["`decoder=`", "outputs", "suppressed by `map`"], rows)


PARTS: dict[str, Callable[[], str]] = {
    "help": lambda: help_text(""),
    **{f"help {name}": lambda name=name: help_text(name) for name in COMMANDS},
    **{
        f"options {each.command}": lambda each=each, of=of: option_table(each, of)
        for each, of in OPTIONS
    },
    "operators": operator_table,
    "gradient rules": gradient_table,
    "scale rules": lambda: rule_table(ScaleRule, lambda row: row.scale),
    "quantized rules": lambda: rule_table(QuantizedRule, lambda row: row.quantized),
    "integer forms": lambda: rule_table(IntegerForm, lambda row: row.integer_form),
    "formats": format_table,
    "schemes": scheme_table,
    "targets": target_table,
    "lint": lint_table,
    "presets": preset_table,
    "decoders": decoder_table,
}


def regenerate(text: str) -> str:
    """The page with all its generated parts made anew."""
    return PART.sub(lambda part: f"{part[1]}{PARTS[part['name']]()}{part[4]}", text)


def main() -> int:
    stale = []
    for page in sorted(DOCS.rglob("*.md")):
        old = page.read_text(encoding="utf-8")
        new = regenerate(old)
        if new == old:
            continue
        stale.append(page)
        if "--check" not in sys.argv[1:]:
            page.write_text(new, encoding="utf-8")
    for page in stale:
        print(page.relative_to(ROOT))
    return 1 if stale and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
