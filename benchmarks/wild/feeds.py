"""Write what a model is fed: a folder of .npz files to calibrate with, another to measure with.

Runs as a child process, since ONNX Runtime computes the states of streaming models:

    python feeds.py MODEL.onnx NAME FOLDER [--manifest FILE] [PICTURE…]

FOLDER/calibration is for onnxq: whole feeds, or sequences without states. FOLDER/feeds holds the
same as whole feeds with states, for ONNX Runtime's quantizer, and FOLDER/test other ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import manifest
import numpy as np
import onnxruntime as ort
from makers import Array, Moment, made
from manifest import Entry

Feed = dict[str, Array]

TEST = 1 << 16
"""Seed of the first test sample."""


def write(model: Path, entry: Entry, folder: Path, pictures: Sequence[Path]) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 3  # some models make it warn of each weight
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    for part, count, seed in (("feeds", entry.feeds, 0), ("test", entry.test, TEST)):
        sequences = [
            _sequence(entry, seed + start, pictures) for start in range(0, count, entry.steps)
        ]
        if entry.states and part == "feeds":
            for number, sequence in enumerate(sequences):
                given = [name for name in sequence[0] if name not in entry.states.values()]
                stacked = {name: np.stack([feed[name] for feed in sequence]) for name in given}
                _save(folder / "calibration", number, stacked)
        feeds = [feed for sequence in sequences for feed in _with_states(session, entry, sequence)]
        for number, feed in enumerate(feeds):
            _save(folder / part, number, feed)
    if not entry.states:
        (folder / "calibration").symlink_to("feeds")


def _sequence(entry: Entry, seed: int, pictures: Sequence[Path]) -> list[Feed]:
    moments = [Moment(seed, step, entry.steps, pictures) for step in range(entry.steps)]
    return [{name: made(spec, at) for name, spec in entry.inputs.items()} for at in moments]


def _with_states(session: ort.InferenceSession, entry: Entry, sequence: list[Feed]) -> list[Feed]:
    outputs, states, feeds = [*entry.states], {}, []
    for feed in sequence:
        feeds.append({**feed, **states})
        if outputs:
            states = dict(zip(entry.states.values(), session.run(outputs, feeds[-1]), strict=True))
    return feeds


def _save(folder: Path, number: int, feed: Feed) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"{number:04}.npz", **feed)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("pictures", type=Path, nargs="*")
    parser.add_argument("--manifest", type=Path, default=manifest.FILE)
    given = parser.parse_args()
    (entry,) = manifest.read(given.manifest).named([given.name])
    write(given.model, entry, given.folder, given.pictures)


if __name__ == "__main__":
    main()
