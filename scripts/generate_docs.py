#!/usr/bin/env python3
"""Rewrite the generated parts of docs/: help texts, operator tables, targets, presets, decoders.

A part lies between `<!-- generated: NAME -->` and `<!-- end generated -->`.

    python scripts/generate_docs.py           # rewrite them
    python scripts/generate_docs.py --check   # exit 1 if one is out of date
"""

from __future__ import annotations

import ast
import itertools
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from click.testing import CliRunner
from onnxq.cli.group import COMMANDS
from onnxq.cli.group import onnxq as command_line
from onnxq.data.settings import PRESETS
from onnxq.model import operators
from onnxq.model.operators import OPERATORS, Int8Rule, IntegerForm, Operator, ScaleRule
from onnxq.targets import TARGETS, Placement, Target
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
    enumeration: type[ScaleRule | Int8Rule | IntegerForm], rule: Callable[[Operator], object]
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
        return "int8"
    if row.int8 is Int8Rule.SHARED:
        return "passes int8"
    if target.placement is Placement.ALL and row.op_type in target.own:
        return "int8"
    if row.fuses:
        return "fused"
    return "residual branch" if row.op_type in target.residual else "float"


def operator_table() -> str:
    return markdown_table(
        ("operator", "channel scale", "int8", *(f"`{name}`" for name in TARGETS)),
        (
            (
                f"`{row.op_type}`",
                row.scale.value,
                row.int8.value,
                *(on_target(row, target) for target in TARGETS.values()),
            )
            for row in OPERATORS.values()
        ),
    )


# --- lint, targets, presets ------------------------------------------------------------------


def lint_table() -> str:
    return markdown_table(
        ("rule", "what to do where it is broken"), ((f"`{r.id}`", r.advice) for r in RULES)
    )


def target_table() -> str:
    yes = {True: "yes", False: "no"}
    facts: tuple[tuple[str, Callable[[Target], str]], ...] = (
        ("runs on", lambda t: t.runs_on),
        ("activations", lambda t: f"{t.activation}, per tensor, {t.levels} levels"),
        ("activation zero points all 0", lambda t: yes[t.symmetric]),
        ("weights", lambda _: "int8 in [−127, 127], symmetric, per channel or per tensor"),
        ("bias", lambda t: "int32, scale = input scale × weight scale" if t.integer_bias else "float32"),
        ("Q/DQ on", lambda t: "weighted inputs and residual branches" if t.placement is Placement.INPUTS
         else "inputs and outputs of every integer kernel"),
        ("weighted operators", lambda t: code(sorted(t.weighted))),
        ("other integer operators", lambda t: code(sorted(t.own))),
        ("residual operators", lambda t: code(sorted(t.residual))),
    )  # fmt: skip
    return markdown_table(
        ("", *(f"`{name}`" for name in TARGETS)),
        ((label, *(fact(target) for target in TARGETS.values())) for label, fact in facts),
    )


def preset_table() -> str:
    return markdown_table(
        ("preset", "is short for"),
        (
            (f"`{name}`", f"`{','.join(f'{key}={value}' for key, value in pairs.items())}`")
            for name, pairs in PRESETS.items()
        ),
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
    "operators": operator_table,
    "scale rules": lambda: rule_table(ScaleRule, lambda row: row.scale),
    "int8 rules": lambda: rule_table(Int8Rule, lambda row: row.int8),
    "integer forms": lambda: rule_table(IntegerForm, lambda row: row.integer_form),
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
