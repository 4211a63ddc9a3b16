"""Two runs that write one model with its data beside it: one of them wins, whole."""

from pathlib import Path

import pytest
from onnxq import records
from onnxq.model import external, files

from support.builder import Builder


@pytest.fixture
def large(monkeypatch):
    """Every model needs a data file of its own."""
    monkeypatch.setattr(external, "INLINE_LIMIT", 1)
    monkeypatch.setattr(external, "SMALL", 1)


def model(seed):
    b = Builder(seed)
    return b.model(b.head(b.conv(b.input(3, 4, 4), 4, name="conv")))


@pytest.mark.usefixtures("large")
def test_the_data_of_another_run_are_left_alone(tmp_path, monkeypatch):
    """Two runs write one model: what the first has put there for its model the second keeps."""
    path = tmp_path / "m.onnx"
    files.save(model(0), path)
    opened, second = files.open_session, []

    def while_the_first_writes(*args, **kwargs):
        if not second:
            second.append(True)
            files.save(model(2), path)
        return opened(*args, **kwargs)

    monkeypatch.setattr(files, "open_session", while_the_first_writes)
    files.save(model(1), path)
    expected = {t.name: t.raw_data for t in model(1).message.graph.initializer}
    assert {t.name: t.raw_data for t in files.load(path).message.graph.initializer} == expected


@pytest.mark.parametrize("moment", ["open", "close"])
def test_an_interrupt_while_the_temporary_file_is_made_leaves_none(tmp_path, monkeypatch, moment):
    """Ctrl-C raises between any two steps; here right after the file has come into being."""
    made = Path.open

    class Interrupting:
        def __init__(self, stream):
            self.stream = stream

        def close(self):
            self.stream.close()
            raise KeyboardInterrupt

    def interrupted(path, *arguments, **settings):
        stream = made(path, *arguments, **settings)
        if moment == "open":
            stream.close()
            raise KeyboardInterrupt
        return Interrupting(stream)

    (tmp_path / "out").write_text("old")
    monkeypatch.setattr(Path, "open", interrupted)
    with pytest.raises(KeyboardInterrupt), records.atomic_path(tmp_path / "out"):
        pass
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out").read_text() == "old"
