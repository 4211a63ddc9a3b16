"""`onnxq calibrate`: one pass over the data, and the table of what it saw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxq.cli import options

if TYPE_CHECKING:
    from pathlib import Path

    from onnxq.calibration.statistics import Calibration
    from onnxq.cli.terminal import Terminal


def parse_shard(_ctx: click.Context, _param: click.Parameter, text: str) -> tuple[int, int]:
    """I/N, the I-th of N parts, counted from 1."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal()):
        raise click.BadParameter(f"{text!r} is no part I/N, such as 1/4")
    if not 1 <= int(index) <= int(count):
        raise click.BadParameter(f"there is no part {index} of {count}")
    return int(index), int(count)


MOST = 3
"""Dead and constant channels that are named without `--verbose`; NaN and Inf always are."""


@click.command()
@options.model_argument()
@options.data_option(required=True)
@options.output_option("the calibration", "FILE.calib", required=False)
@options.preprocess_option()
@options.samples_option()
@options.batch_size_option()
@click.option("--shard", callback=parse_shard, default="1/1", show_default=True, metavar="I/N",
              help="Run only the I-th of N parts; onnxq merge joins them.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
              help="Run in N processes; the result is the same.")  # fmt: skip
@options.dask_option()
@options.memory_option()
@click.option("--resume", is_flag=True,
              help="Go on where a killed run with the same output stopped.")  # fmt: skip
@options.libraries_option()
@options.choice("--provider", ("cpu", "cuda", "auto"),
                "Where the model runs; auto: CUDA if usable.", default="cpu")  # fmt: skip
@click.option("--format", "table_format", type=click.Choice(("table", "csv", "json")),
              help="Print the calibration table; by default where no -o is given.")  # fmt: skip
@click.option("--allow-nonfinite", is_flag=True,
              help="Count NaN and Inf instead of refusing them.")  # fmt: skip
@options.common
def calibrate(
    *,
    model: Path,
    data: str,
    output: Path | None,
    preprocess: str | None,
    samples: int | None,
    batch_size: int,
    shard: tuple[int, int],
    jobs: int,
    dask: str | None,
    memory: int,
    resume: bool,
    provider: str,
    table_format: str | None,
    allow_nonfinite: bool,
    terminal: Terminal,
) -> None:
    """Record what each tensor's values look like.

    MODEL runs over the data once; memory does not grow with the number of samples.
    """
    from onnxq import api
    from onnxq.calibration import files
    from onnxq.calibration.checkpoint import remove_states, state_path
    from onnxq.calibration.table import calibration_table
    from onnxq.model.normalize import normalize
    from onnxq.report import calibration as report
    from onnxq.report.table import to_csv

    terminal = terminal.with_json(asked=table_format == "json")
    options.check_output(output, model, data)
    if resume and output is None:
        raise click.UsageError("--resume needs -o: the state of a run lies beside its output")
    if dask and (resume or jobs > 1):
        raise click.UsageError("--dask goes neither with --jobs nor with --resume")
    state = state_path(output) if output is not None and not dask else None
    loaded = api.load(model)
    calibration = api.calibrate(
        loaded, data, preprocess=preprocess, samples=samples, batch_size=batch_size, shard=shard,
        jobs=jobs, dask=dask, memory=memory, state=state, resume=resume,
        provider=_usable(provider, terminal), allow_nonfinite=allow_nonfinite,
        progress=terminal.progress,
    )  # fmt: skip
    if output is not None and state is not None:
        files.save(calibration, output)
        remove_states(state)
    _say_notes(terminal, calibration, output)
    if not (terminal.json or table_format or output is None):
        return
    rows = calibration_table(*normalize(loaded), calibration)
    if terminal.json:
        terminal.document("calibrate", report.document(loaded, calibration, rows, output))
    elif table_format == "csv":
        terminal.raw(to_csv(report.table_of(rows, digits=9)))
    else:
        terminal.table(report.table_of(rows))


def _usable(provider: str, terminal: Terminal) -> str:
    """The provider that `auto` stands for here; says why where it is the CPU."""
    if provider != "auto":
        return provider
    from onnxq.errors import ProviderError
    from onnxq.model.cuda import require_cuda

    try:
        require_cuda()
    except ProviderError as error:
        terminal.note(f"note: runs on the CPU: {error.message}")
        return "cpu"
    return "cuda"


def _say_notes(terminal: Terminal, calibration: Calibration, output: Path | None) -> None:
    from onnxq.calibration.findings import (
        CONSTANT,
        NOT_FINITE,
        ZERO,
        find_oddities,
        too_few_samples,
    )
    from onnxq.report.table import count

    seen = count(calibration.samples, "sample") + " seen, "
    terminal.note(seen + count(len(calibration.tensors), "tensor"))
    terminal.detail(f"model {calibration.provenance.model}")
    terminal.detail(f"data {calibration.data}")
    if calibration.provenance.preprocessing:
        terminal.detail(f"preprocessing {calibration.provenance.preprocessing}")
    if calibration.note:
        terminal.note(f"note: {calibration.note}")
    findings = find_oddities(calibration)
    bad = [each for each in findings if each.kind == NOT_FINITE]
    dead = [each for each in findings if each.kind in {ZERO, CONSTANT}]
    shown = findings if terminal.verbose else [*bad, *dead[:MOST]]
    for finding in shown:
        terminal.note(f"note: {finding.tensor}: {finding.text}")
    rest = [each for each in findings if each not in shown]
    if rest:
        kinds = ", ".join(sorted({each.kind for each in rest}))
        terminal.note(f"note: {count(len(rest), 'more finding')} ({kinds}); -v names them")
    few = too_few_samples(calibration)
    if few:
        terminal.note(f"note: {few}")
    if output is not None:
        terminal.note(f"wrote {output}")
