"""Help: options under headings, examples that are real command lines."""

import shlex
from pathlib import Path

import click
import pytest
from onnxq.cli.examples import EXAMPLES
from onnxq.cli.group import onnxq as command_line
from onnxq.cli.help import by_group
from onnxq.options.commands import COMMANDS
from onnxq.options.groups import GROUPS, OTHERS

from support.cli_case import Case, run


def made(name: str) -> click.Command:
    found = command_line.get_command(click.Context(command_line), name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_is_under_one_heading(name: str):
    params = made(name).params
    grouped = [each for _, group in by_group(params) for each in group]
    assert sorted(each.name for each in grouped) == sorted(
        each.name for each in params if isinstance(each, click.Option)
    )
    text = run(name, "--help").out
    headings = [heading for heading, _ in by_group(params)]
    places = [text.index(f"\n{heading}:\n") for heading in headings]
    assert places == sorted(places)
    assert headings[-1] == OTHERS


def test_no_option_has_two_headings_and_each_exists():
    names = [name for group in GROUPS.values() for name in group]
    assert len(names) == len(set(names))
    assert set(names) <= {each.name for name in COMMANDS for each in made(name).params}


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_in_the_help_and_parse(name: str, monkeypatch: pytest.MonkeyPatch):
    assert set(EXAMPLES) == set(COMMANDS)
    text = run(name, "--help").out
    for line in EXAMPLES[name]:
        assert f"  {line}\n" in text
        program, command, *arguments = shlex.split(line)
        assert (program, command) == ("onnxq", name)
        made(name).make_context(name, arguments)


# --- near misses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("quantise",), "did you mean 'quantize'?"),
        (("frobnicate",), "the commands are: calibrate, merge"),
        (("inspect", "tini.onnx"), "did you mean 'tiny.onnx'?"),
        (("inspect", "tiny.onn"), "did you mean 'tiny.onnx'?"),
        (("inspect", "no/where.onnx"), "no such file\n"),
    ],
)
def test_near_misses(case: Case, monkeypatch, arguments, words):
    monkeypatch.chdir(case.folder)
    found = run(*arguments)
    assert found.code in {2, 3}
    assert words in found.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("resize=8,mean=0.5,0.5,0.5,std=0.5", "(write mean=0.5:0.5:0.5)"),
        ("imagenet,std=1,2", "(write std=1:2)"),
        ("crop", "crop has no value (write crop=224)"),
        ("resize=8,mean", "mean has no value (write mean=0.5:0.5:0.5)"),
        ("0.5,0.5", "unknown preprocessing '0.5'"),
    ],
)
def test_preprocessings_as_other_tools_write_them(case: Case, text: str, words: str):
    assert words in run("calibrate", case.model, "--data", case.images, "--preprocess", text).err


# --- completion ------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_once(tmp_path, monkeypatch, shell):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    line = run("completion").out.strip()
    assert f"_ONNXQ_COMPLETE={shell}_source" in line
    assert not list(tmp_path.iterdir())
    first = run("completion", "--install", "--json").json
    assert (first["shell"], first["line"], first["installed"]) == (shell, line, True)
    assert run("completion", "--install").code == 0
    assert Path(first["file"]).read_text(encoding="utf-8") == f"{line}\n"


def test_completion_of_an_unknown_shell():
    found = run("completion", "tcsh")
    assert found.code == 2
    assert "bash, zsh, fish" in found.err


def test_completion_where_no_shell_is_known(monkeypatch):
    monkeypatch.delenv("SHELL", raising=False)
    found = run("completion", "--install")
    assert found.code == 2
    assert "SHELL names no shell (name one: bash, zsh, fish)" in found.err
