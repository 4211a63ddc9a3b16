"""Quantize one model with onnxq and with five other quantizers; print what each makes of it.

    python benchmarks/peers/run.py MODEL --calibration DATA --test DATA --preprocess P
    python benchmarks/peers/run.py MODEL --calibration DATA --test DATA --transformer --metric sqnr

Each tool is installed in a virtual environment of its own under --cache, gets the same samples, and
runs as a process of its own, one at a time. All quantized models are evaluated alike: an image
classifier by top-1 and SQNR, any other by the metrics of `onnxq validate` that --metric names. With
--transformer the modes are those for transformers, with --wide those with 16-bit activations.
Results are kept under --cache: `--only onnxq` measures onnxq again and prints it beside what is
known of the others, `--missing` measures what has no figures yet, `--only none` just prints.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import process
import results
from install import interpreter
from tools import TOOLS, TRANSFORMERS, WIDE, Mode, Tool

HERE = Path(__file__).parent


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(options.keep or folder).resolve()
        work.mkdir(parents=True, exist_ok=True)
        samples = {
            name: Path(_script("prepare.py", options.model, getattr(options, name),
                               options.preprocess, options.tokenizer, str(work / name)).strip())
            for name in ("calibration", "test")
        }  # fmt: skip
        tools = TRANSFORMERS if options.transformer else WIDE if options.wide else TOOLS
        others = () if options.execution == "cpu" else (options.execution,)
        case = _case(Path(options.model), *samples.values(), words=(*options.metric, *others))
        kept = options.cache / "results" / case
        for tool in tools:
            if tool.name in options.only:
                _measure(tool, options, samples, kept)
        print(f"{Path(options.model).name}; results kept in {kept}\n")
        print("\n".join(results.table(kept, tools)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [tool.name for tool in TOOLS]
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--calibration", required=True, metavar="DATA", help="as onnxq --data")
    parser.add_argument("--test", required=True, metavar="DATA", help="labelled, for top-1")
    parser.add_argument("--preprocess", default="", metavar="P", help="as onnxq --preprocess")
    parser.add_argument("--tokenizer", default="", metavar="FILE", help="as onnxq --tokenizer")
    parser.add_argument(
        "--metric", action="append", default=[], metavar="METRIC",
        help="as onnxq validate --metric; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--execution", default="cpu", metavar="E", help="of --metric, as onnxq validate's"
    )
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--transformer", action="store_true", help="the modes for transformers")
    modes.add_argument("--wide", action="store_true", help="the modes with 16-bit activations")
    parser.add_argument(
        "--only", action="append", choices=[*names, "none"], help="measure this tool; repeatable"
    )
    parser.add_argument("--mode", default="", metavar="REGEX", help="only rows that match")
    parser.add_argument("--slow", action="store_true", help="also the modes that take minutes")
    parser.add_argument("--missing", action="store_true", help="only what has no figures yet")
    parser.add_argument("--limit", type=float, default=3600, metavar="S", help="seconds per run")
    parser.add_argument(
        "--cache", type=Path, default=Path.home() / ".cache" / "onnxq-peers", metavar="FOLDER"
    )
    parser.add_argument("--keep", metavar="FOLDER", help="leave samples and int8 models here")
    parser.add_argument(
        "--interpreter", action="append", default=[], metavar="TOOL=PYTHON",
        help="a Python that has the tool already, in place of its environment",
    )  # fmt: skip
    options = parser.parse_args()
    options.model = str(Path(options.model).resolve())
    options.only = options.only or names
    options.cache = options.cache.resolve()
    options.metric = [_absolute(metric) for metric in options.metric]
    given = (word.split("=", 1) for word in options.interpreter)
    options.interpreter = {name: str(Path(python).absolute()) for name, python in given}
    return options


def _absolute(metric: str) -> str:
    """A metric of a file by a path that holds in any folder."""
    path, colon, rest = metric.partition(".py:")
    return f"{Path(path).resolve()}{colon}{rest}" if colon else metric


def _script(name: str, *arguments: str) -> str:
    """Run a script of this folder in this environment; its stdout."""
    return process.run([sys.executable, str(HERE / name), *arguments], limit=3600).output


def _case(*files: Path, words: Sequence[str]) -> str:
    """A name for model, data and metrics together, by content."""
    digest = hashlib.sha256(" ".join(Path(word).name for word in words).encode())
    for given in files:
        for file in sorted(given.iterdir()) if given.is_dir() else [given]:
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return f"{files[0].stem}-{digest.hexdigest()[:12]}"


def _measure(
    tool: Tool, options: argparse.Namespace, samples: Mapping[str, Path], kept: Path
) -> None:
    """Run the tool's modes and keep each row as soon as it is there."""
    rows = results.load(kept, tool)
    modes = [
        mode
        for mode in tool.modes
        if (options.slow or not mode.slow)
        and re.search(options.mode, mode.key)
        and not (options.missing and mode.key in rows and not rows[mode.key].failure)
    ]
    if not modes:
        return
    try:
        command = _command(tool, options)
    except process.Failed as failure:
        reason = str(failure)
        rows |= {mode.key: replace(_empty(), failure=reason) for mode in modes}
        print(f"{tool.name}: {reason}", file=sys.stderr, flush=True)
        results.save(kept, tool, rows)
        return
    for mode in modes:
        print(f"{tool.name}: {mode.key}", file=sys.stderr, flush=True)
        rows[mode.key] = _row(tool, mode, command, options, samples)
        results.save(kept, tool, rows)


Command = Callable[[str, str, str, Mode], list[str]]


def _command(tool: Tool, options: argparse.Namespace) -> Command:
    """From model, calibration samples, output and mode to the command that quantizes."""
    if tool.driver is None:
        return lambda model, samples, output, mode: [
            sys.executable, "-m", "onnxq", "quantize", model, "--data", samples, "-o", output,
            *mode.settings,
        ]  # fmt: skip
    given = options.interpreter.get(tool.name)
    python = given or str(interpreter(tool, options.cache))
    driver = str(HERE / "drivers" / tool.driver)
    return lambda model, samples, output, mode: [
        python, driver, model, samples, output, json.dumps(mode.settings)
    ]  # fmt: skip


def _row(
    tool: Tool,
    mode: Mode,
    command: Command,
    options: argparse.Namespace,
    samples: Mapping[str, Path],
) -> results.Row:
    work = samples["test"].parent
    row, output = _empty(), work / f"{tool.name}-{tool.modes.index(mode)}.onnx"
    try:
        cost = process.run(
            command(options.model, str(samples["calibration"]), str(output), mode),
            limit=options.limit,
            folder=work,  # some leave files where they run
            environment=tool.environment,
        )
        if not output.is_file():
            return replace(row, failure="it wrote no model")
        row = replace(
            row,
            seconds=cost.seconds,
            cpu_seconds=cost.cpu_seconds,
            megabytes=cost.megabytes,
            file_megabytes=output.stat().st_size / 2**20,
        )
        given = (options.model, str(output), str(samples["test"]))
        if options.metric:
            found = _script("measure.py", *given, options.execution, *options.metric)
        else:
            found = _script("evaluate.py", *given, str(work / "reference.npy"))
        return replace(row, **json.loads(found))
    except process.Failed as failure:
        return replace(row, failure=str(failure))


def _empty() -> results.Row:
    return results.Row(
        dt.datetime.now(tz=dt.timezone.utc).date().isoformat(), round(os.getloadavg()[0], 1)
    )


if __name__ == "__main__":
    main()
