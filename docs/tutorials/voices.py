"""Make sounds for a voice detector: a folder of .npz files, each a sequence of chunks.

python voices.py FOLDER COUNT FIRST
"""

import sys
from pathlib import Path

import numpy as np

RATE = 16000
CHUNK, BEFORE = 512, 64
"""A step reads 512 new values, and the last 64 of the step before."""


def sound(number: int, seconds: float = 3.0) -> np.ndarray:
    """Syllables of a synthetic voice with pauses between them, in noise."""
    draws = np.random.default_rng(number)
    count = int(seconds * RATE)
    time = np.arange(count) / RATE
    pitch = draws.uniform(90, 220) * (1 + 0.1 * np.sin(2 * np.pi * draws.uniform(1, 4) * time))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    formants = draws.uniform((300, 900, 2200), (800, 2200, 3200))
    voice = np.zeros(count)
    for overtone in range(1, 30):
        near = np.exp(-(((overtone * pitch[:, None] - formants) / 150) ** 2)).sum(axis=1) + 0.02
        voice += near * np.sin(overtone * phase) / overtone**0.5
    syllables = np.sin(2 * np.pi * draws.uniform(2, 4) * time + draws.uniform(0, 6)) > -0.2
    pauses = np.sin(2 * np.pi * draws.uniform(0.3, 0.6) * time + draws.uniform(0, 6)) > -0.3
    loud = np.convolve(syllables & pauses, np.hanning(800) / 400, mode="same")
    noise = draws.normal(0, draws.uniform(0.002, 0.02), count)
    return (0.2 * voice / np.abs(voice).max() * loud + noise).astype(np.float32)


def chunks(values: np.ndarray) -> np.ndarray:
    """Steps × 1 × 576: what the model is fed, one step after the other."""
    padded = np.concatenate([np.zeros(BEFORE, np.float32), values])
    steps = (len(padded) - BEFORE) // CHUNK
    return np.stack([padded[i * CHUNK : i * CHUNK + BEFORE + CHUNK] for i in range(steps)])[:, None]


def main(folder: str, count: str, first: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    for number in range(int(first), int(first) + int(count)):
        steps = chunks(sound(number))
        rates = np.full(len(steps), RATE, np.int64)
        np.savez(Path(folder) / f"{number:04}.npz", input=steps, sr=rates)


main(*sys.argv[1:])
