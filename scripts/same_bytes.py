#!/usr/bin/env python3
"""Make the models of testdata/ with another commit and with the working tree; compare the bytes.

Both run here and now through their command line, since adaptive rounding and the statistics depend
on the processor: a stored hash would fail on another machine.

    python scripts/same_bytes.py HEAD~3           # every case, some minutes
    python scripts/same_bytes.py HEAD --quick     # the cheap ones, from stored calibrations
    python scripts/same_bytes.py HEAD --only 'mobilenetv2 cpu'

Exit code 1: a result differs in more than its metadata, of which `ir_version` is one.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto, numpy_helper

ROOT = Path(__file__).resolve().parent.parent
DATA = "inputs/fashion-mnist/calibration"
PREPROCESS = ("--preprocess", "unit,color=gray,mean=0.5,std=0.5")
MODELS = ("squeezenet", "mobilenetv2", "encoder")
SAMPLES, FEW_SAMPLES = 100, 20

FREE_HEADER = frozenset({"onnxq", "version"})
"""Keys of a calibration file's header that name the program and not the data."""

PLAIN = ("--rounding", "nearest", "--no-bias-correction")
FROM_FILE = {
    "nearest": (),
    "nearest, no-equalize": ("--no-equalize",),
    "nearest, no-absorb-bias": ("--no-absorb-bias",),
    "nearest, minmax": ("--ranges", "minmax"),
    "nearest, percentile": ("--ranges", "percentile"),
    "nearest, entropy": ("--ranges", "entropy"),
    "nearest, power-of-two": ("--scale", "power-of-two"),
}
"""Made from a stored calibration alone."""
FROM_DATA = {
    "defaults": (),
    "no-equalize": ("--no-equalize",),
    "no-bias-correction": ("--no-bias-correction",),
}
EQUALIZED = {
    "equalize": (),
    "equalize, absorb-bias": ("--absorb-bias",),
    "equalize, real": ("--scales", "real"),
    "equalize, relu6 tie": ("--relu6", "tie"),
    "equalize, relu6 per-channel": ("--relu6", "per-channel"),
    "equalize, relu6 relu": ("--relu6", "relu"),
    "equalize, relu6 skip": ("--relu6", "skip"),
}


# --- the cases -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One command; `output` is the file it makes, in the folder where it runs."""

    name: str
    arguments: tuple[str, ...]
    output: str


def calibrations(samples: int) -> Iterator[Case]:
    for model in MODELS:
        arguments = ("--data", DATA, *PREPROCESS, "--samples", str(samples))
        yield command("calibrate", f"{model} calibrate", model, arguments, f"{model}.calib")


def quick() -> Iterator[Case]:
    """The cheap ones: nearest rounding from a stored calibration, adaptive rounding once a model."""
    given = stored("mobilenetv2")
    yield from quantizations("mobilenetv2", "gpu", "per-tensor", FROM_FILE, given)
    yield from quantizations("mobilenetv2", "cpu", "per-channel", FROM_FILE, given)
    some = {name: FROM_FILE[name] for name in ("nearest", "nearest, minmax")}
    for model in MODELS:
        yield from quantizations(model, "gpu", "per-channel", some, stored(model))
        yield from quantizations(model, "cpu", "per-tensor", some, stored(model))
    for model in MODELS:
        defaults = {"defaults": ()}
        yield from quantizations(model, "gpu", "per-channel", defaults, live(FEW_SAMPLES))
    some = {name: EQUALIZED[name] for name in ("equalize", "equalize, relu6 per-channel")}
    yield from equalizations("mobilenetv2", some)


def full() -> Iterator[Case]:
    for model in MODELS:
        yield from equalizations(model, EQUALIZED if model == "mobilenetv2" else {"equalize": ()})
        for target, weights in itertools.product(("gpu", "cpu"), ("per-channel", "per-tensor")):
            yield from quantizations(model, target, weights, FROM_FILE, stored(model))
            yield from quantizations(model, target, weights, FROM_DATA, live(SAMPLES))
        half = {"rest fp16": ("--rest", "fp16")}
        yield from quantizations(model, "gpu", "per-channel", half, live(SAMPLES))
    excluded = {"include, exclude": ("--include", "conv", "--exclude", "conv2d_[1-4]$")}
    yield from quantizations("mobilenetv2", "cpu", "per-channel", excluded, stored("mobilenetv2"))
    # Without equalization some layers must stay in float.
    search = ("--no-equalize", "--max-drop", "5", "--validate-data", DATA, "--max-trials", "4")
    found = {"max-drop": (*PLAIN, *search, "--max-minutes", "60")}
    yield from quantizations("mobilenetv2", "cpu", "per-tensor", found, live(FEW_SAMPLES))


def stored(model: str) -> tuple[str, ...]:
    return ("--calibration", f"inputs/{model}.calib", *PLAIN)


def live(samples: int) -> tuple[str, ...]:
    return ("--data", DATA, *PREPROCESS, "--samples", str(samples))


def quantizations(
    model: str, target: str, weights: str, options: dict[str, tuple[str, ...]], given: Sequence[str]
) -> Iterator[Case]:
    for name, more in options.items():
        arguments = ("--target", target, "--weights", weights, *given, *more)
        label = f"{model} {target} {weights}: {name}"
        yield command("quantize", label, model, arguments, "out.onnx")


def equalizations(model: str, options: dict[str, tuple[str, ...]]) -> Iterator[Case]:
    for name, more in options.items():
        arguments = ("--calibration", f"inputs/{model}.calib", *more)
        yield command("equalize", f"{model}: {name}", model, arguments, "out.onnx")


def command(verb: str, name: str, model: str, arguments: Sequence[str], output: str) -> Case:
    return Case(name, (verb, f"inputs/{model}.onnx", *arguments, "-o", output, "-q"), output)


# --- running ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tree:
    """A folder with the package, and the folder in which its commands run."""

    source: Path
    work: Path

    def start(self, arguments: Sequence[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *arguments], cwd=self.work, text=True,
            env={**os.environ, "PYTHONPATH": str(self.source)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip


@dataclass(frozen=True)
class Made:
    """What a command left: the file's bytes, or None and what it said instead."""

    code: int
    content: bytes | None
    said: str


def run_both(trees: Sequence[Tree], arguments: Sequence[str]) -> list[tuple[int, str]]:
    """Exit code and text of the same command in both trees, which run at the same time."""
    running = [tree.start(arguments) for tree in trees]
    try:
        texts = [process.communicate()[0] for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    return [(process.returncode, text) for process, text in zip(running, texts, strict=True)]


def make(trees: Sequence[Tree], case: Case) -> list[Made]:
    made = []
    done = run_both(trees, ["-m", "onnxq", *case.arguments])
    for tree, (code, text) in zip(trees, done, strict=True):
        path = tree.work / case.output
        content = path.read_bytes() if path.exists() else None
        path.unlink(missing_ok=True)
        made.append(Made(code, content, next(iter(text.strip().splitlines()), "")))
    return made


def unpack(commit: str, folder: Path) -> Path:
    """The package as the commit has it, in a folder to put on the path."""
    archive = subprocess.run(
        ["git", "archive", "--format=tar", commit, "onnxq"],
        cwd=ROOT, capture_output=True, check=False,
    )  # fmt: skip
    if archive.returncode:
        sys.exit(f"error: git archive {commit}: {archive.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def prepare(base: str, folder: Path) -> list[Tree]:
    """The package of commit `base` and the working tree's, each with a folder to run in."""
    inputs = folder / "inputs"
    inputs.mkdir()
    for path in (ROOT / "testdata").iterdir():
        (inputs / path.name).symlink_to(path)
    source = unpack(base, folder / "source")
    trees = [Tree(source, folder / "base"), Tree(ROOT, folder / "tree")]
    for tree in trees:
        tree.work.mkdir()
        (tree.work / "inputs").symlink_to(inputs)
    # Were it the installed package both times, everything would be equal.
    imported = run_both(trees, ["-c", "import onnxq; print(onnxq.__file__)"])
    for tree, (_, text) in zip(trees, imported, strict=True):
        if Path(text.strip()).parent.parent != tree.source:
            sys.exit(f"error: onnxq comes from {text.strip()}, not from {tree.source}")
    return trees


# --- comparing -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """Of one case.

    Attributes:
        kind: "same", "metadata only", "refused" by both, or "DIFFERENT".
        detail: what differs first, or what was said.
    """

    kind: str
    detail: str = ""


def compare(base: Made, tree: Made) -> Verdict:
    if base.content is None or tree.content is None:
        if base.code == tree.code and base.content is tree.content:
            return Verdict("refused", f"exit {tree.code}: {tree.said}")
        said = "; ".join(f"exit {made.code}: {made.said}" for made in (base, tree))
        return Verdict("DIFFERENT", said)
    if base.content == tree.content:
        return Verdict("same") if base.code == tree.code else Verdict("DIFFERENT", "exit codes")
    compare_files = compare_archives if base.content[:2] == b"PK" else compare_models
    return compare_files(base.content, tree.content)


def compare_models(base: bytes, tree: bytes) -> Verdict:
    before, after = ModelProto.FromString(base), ModelProto.FromString(tree)
    keys = changed(*({p.key: p.value for p in m.metadata_props} for m in (before, after)))
    if before.ir_version != after.ir_version:
        keys.append(f"ir_version {before.ir_version} before, {after.ir_version} now")
    for model in (before, after):
        del model.metadata_props[:]
        model.ir_version = 0
    if before == after:
        return Verdict("metadata only", ", ".join(keys) or "the order of its entries")
    return Verdict("DIFFERENT", first_difference(before, after))


def first_difference(before: ModelProto, after: ModelProto) -> str:
    """What to look at first, in the order in which a reader meets it."""
    for old, new in zip(before.graph.node, after.graph.node, strict=False):
        if old != new:
            fields = ", ".join(changed(fields_of(old), fields_of(new)))
            return (
                f"node {old.name!r} ({old.op_type}) against {new.name!r} ({new.op_type}): {fields}"
            )
    counts = [len(model.graph.node) for model in (before, after)]
    if counts[0] != counts[1]:
        return f"{counts[0]} nodes against {counts[1]}"
    tensors = [{t.name: t for t in model.graph.initializer} for model in (before, after)]
    names = [name for name in changed(*tensors) if name]
    if names:
        return f"{len(names)} initializers, first {different_values(names[0], *tensors)}"
    if before.graph != after.graph:
        return f"graph: {', '.join(changed(fields_of(before.graph), fields_of(after.graph)))}"
    return f"model: {', '.join(changed(fields_of(before), fields_of(after)))}"


def different_values(name: str, *sides: dict[str, TensorProto]) -> str:
    if any(name not in tensors for tensors in sides):
        return f"{name!r}, which only one has"
    old, new = (tensors[name] for tensors in sides)
    if (old.data_type, old.dims) != (new.data_type, new.dims):
        types = (f"{TensorProto.DataType.Name(t.data_type)} {list(t.dims)}" for t in (old, new))
        return f"{name!r}: {' against '.join(types)}"
    values = [numpy_helper.to_array(tensor).ravel() for tensor in (old, new)]
    where = np.flatnonzero(values[0] != values[1])
    if not where.size:
        return f"{name!r}: stored another way"
    first = " against ".join(str(side[where[0]]) for side in values)
    return f"{name!r}: {where.size} of {values[0].size} values, first {first}"


def fields_of(message: onnx.NodeProto | GraphProto | ModelProto) -> dict[str, Any]:
    """Field → value, those alike in meaning but for `graph`, which is compared before."""
    return {field.name: value for field, value in message.ListFields() if field.name != "graph"}


def compare_archives(base: bytes, tree: bytes) -> Verdict:
    """Of two calibration files."""
    before, after = (entries(content) for content in (base, tree))
    names = changed(before, after)
    if set(names) - {"header.json"}:
        return Verdict("DIFFERENT", f"entries {', '.join(names)}")
    keys = changed(*(json.loads(side["header.json"]) for side in (before, after)))
    kind = "DIFFERENT" if set(keys) - FREE_HEADER else "metadata only"
    return Verdict(kind, f"header: {', '.join(keys) or 'its form'}")


def entries(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Keys whose values differ or that only one has, in order."""
    keys = [*before, *(key for key in after if key not in before)]
    return [
        key for key in keys if key not in before or key not in after or before[key] != after[key]
    ]


# --- the command -----------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", metavar="BASE", help="commit to compare the working tree with")
    parser.add_argument("--quick", action="store_true", help="only the cheap cases")
    parser.add_argument("--only", metavar="REGEX", default="", help="only cases whose name matches")
    options = parser.parse_args()

    started, rows = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="onnxq.same_bytes.") as name:
        folder = Path(name)
        trees = prepare(options.base, folder)
        samples = FEW_SAMPLES if options.quick else SAMPLES
        cases = quick() if options.quick else full()
        chosen = [case for case in cases if re.search(options.only, case.name)]
        used = {Path(argument).name for case in chosen for argument in case.arguments}
        needed = [case for case in calibrations(samples) if case.output in used]
        for case in [*needed, *chosen]:
            began = time.monotonic()
            base, tree = make(trees, case)
            if case in needed and base.content is not None:
                # Both go on from the same file: the older one's, which the newer must read.
                (folder / "inputs" / case.output).write_bytes(base.content)
            verdict = compare(base, tree)
            rows.append((case, verdict))
            print(f"{verdict.kind:14} {time.monotonic() - began:5.1f} s  {case.name}", flush=True)
    table(rows)
    counts = Counter(verdict.kind for _, verdict in rows)
    summary = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    print(f"\n{len(rows)} cases in {time.monotonic() - started:.0f} s: {summary or 'none'}")
    return 1 if counts["DIFFERENT"] else 0


def table(rows: Sequence[tuple[Case, Verdict]]) -> None:
    width = max((len(case.name) for case, _ in rows), default=0)
    print(f"\n{'case':{width}}  {'file':9}  {'metadata only':13}  detail")
    for case, verdict in rows:
        only = "yes" if verdict.kind == "metadata only" else ""
        file = "different" if only else verdict.kind.lower()
        print(f"{case.name:{width}}  {file:9}  {only:13}  {verdict.detail}".rstrip())


if __name__ == "__main__":
    sys.exit(main())
