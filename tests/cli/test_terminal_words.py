"""Where a command's words go, and that names in them do not steer the terminal."""

import json

import pytest
from onnxq.cli.pulse import Pulse
from onnxq.cli.terminal import Terminal
from onnxq.cli.text import printable
from onnxq.progress import SILENT
from onnxq.report.table import table


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("conv_1 é 層", "conv_1 é 層"),
        ("two\nlines\tand", "two\nlines\tand"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("a\rb\x00", r"a\rb\x00"),
        ("\u202eleft", r"\u202eleft"),
        ("", ""),
    ],
)
def test_what_would_steer_a_terminal_is_written_out(text, shown):
    assert printable(text) == shown


def said(capsys, terminal):
    """What goes to stdout and stderr."""
    terminal.line("line")
    terminal.note("note")
    terminal.detail("detail")
    terminal.table(table("Head", [["cell"]]))
    terminal.table(table("Nothing", []))
    terminal.document("inspect", {"key": 1})
    found = capsys.readouterr()
    assert "Nothing" not in found.out + found.err
    return found


def words(text):
    return {word for word in ("line", "note", "detail", "cell") if word in text}


@pytest.mark.parametrize(
    ("options", "out", "err"),
    [
        ({}, {"line", "cell"}, {"note"}),
        ({"verbose": True}, {"line", "cell"}, {"note", "detail"}),
        ({"quiet": True}, {"line", "cell"}, set()),
        ({"json": True}, set(), {"line", "cell", "note"}),
        ({"json": True, "quiet": True}, set(), set()),
    ],
)
def test_results_go_to_stdout_and_notes_to_stderr(capsys, options, out, err):
    found = said(capsys, Terminal(**options))
    assert (words(found.out), words(found.err)) == (out, err)
    if options.get("json"):
        assert json.loads(found.out)["key"] == 1


def test_a_document_may_be_asked_for_by_another_option():
    assert Terminal().with_json(asked=True).json
    assert Terminal(json=True).with_json(asked=False).json
    assert not Terminal().with_json(asked=False).json


def test_a_file_gets_a_line_now_and_then_and_nothing_where_that_is_too_much():
    assert isinstance(Terminal().progress, Pulse)
    assert Terminal(quiet=True).progress is SILENT
