"""What stands in for real data: photographs, lines of text, voices, their spectra, numbers.

A maker takes its table of the manifest and a `Moment`, and gives the array of one feed. The same
moment gives the same array.
"""

from __future__ import annotations

import functools
import string
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Array = NDArray[Any]
Spec = Mapping[str, Any]


@dataclass(frozen=True)
class Moment:
    """Which sample.

    Attributes:
        seed: of the sequence, or of the sample where it is none.
        step, steps: place in its sequence, and how many there are.
        pictures: files to cut photographs from.
    """

    seed: int
    step: int
    steps: int
    pictures: Sequence[Path]

    def rng(self, *more: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, *more))


def made(spec: Spec, moment: Moment) -> Array:
    """The array for one input in one feed, of the maker that the table names."""
    values = MAKERS[spec["maker"]](spec, moment)
    return values.reshape(spec["shape"]).astype(spec.get("type", "float32"), order="C")


# --- pictures -------------------------------------------------------------------------------------


def _photo(spec: Spec, moment: Moment) -> Array:
    """Parts of photographs, enlarged or shrunk to the size of the input."""
    batch, height, width, _ = _sizes(spec)
    rng = moment.rng()
    crops = []
    for _ in range(batch):
        picture = _opened(moment.pictures[rng.integers(len(moment.pictures))])
        part = rng.uniform(0.4, 1.0) * min(picture.width / width, picture.height / height)
        size = part * width, part * height
        x, y = (rng.uniform(0, whole - s) for whole, s in zip(picture.size, size, strict=True))
        box = (x, y, x + size[0], y + size[1])
        crop = picture.resize((width, height), Image.Resampling.BILINEAR, box)
        crops.append(
            crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop
        )
    return _as_input(crops, spec)


def _text(spec: Spec, moment: Moment) -> Array:
    """Words and numbers, printed dark on light or light on dark, `lines` of them."""
    batch, height, width, _ = _sizes(spec)
    rng = moment.rng()
    return _as_input(
        [_printed(height, width, spec.get("lines", 1), rng) for _ in range(batch)], spec
    )


def _printed(height: int, width: int, lines: int, rng: np.random.Generator) -> Image.Image:
    paper = int(rng.integers(150, 256))
    ink = int(rng.integers(0, 90))
    if rng.random() < 0.3:
        paper, ink = ink, paper
    picture = Image.new("RGB", (width, height), (paper, paper, min(paper + 10, 255)))
    draw = ImageDraw.Draw(picture)
    row = height / lines
    for line in range(lines):
        letters = rng.choice(list(string.ascii_letters + string.digits + "    -.,"), width)
        size = row * rng.uniform(0.55, 0.85)
        place = (rng.uniform(2, width / 10), row * (line + rng.uniform(0, 0.15)))
        count = int(rng.uniform(0.4, 0.95) * width / size * 1.8)
        draw.text(place, "".join(letters[:count]), (ink,) * 3, ImageFont.load_default(size))
    noise = rng.normal(0, 6, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))


def _as_input(pictures: Sequence[Image.Image], spec: Spec) -> Array:
    """Pixels as the package lays them out: (pixel × scale − mean) / std."""
    channels = _sizes(spec)[3]
    pixels = np.stack(
        [np.asarray(p.convert("L" if channels == 1 else "RGB"), np.float64) for p in pictures]
    )
    pixels = pixels.reshape(*pixels.shape[:3], channels)
    if spec.get("color") == "bgr":
        pixels = pixels[..., ::-1]
    pixels = (pixels * spec.get("scale", 1 / 255) - spec.get("mean", 0)) / spec.get("std", 1)
    return pixels if spec.get("layout") == "nhwc" else pixels.transpose(0, 3, 1, 2)


def _sizes(spec: Spec) -> tuple[int, int, int, int]:
    n, *rest = spec["shape"]
    c, h, w = (rest[2], rest[0], rest[1]) if spec.get("layout") == "nhwc" else rest
    return n, h, w, c


@functools.cache
def _opened(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB")


# --- sound ----------------------------------------------------------------------------------------


def _voice(spec: Spec, moment: Moment) -> Array:
    """Something like speech: harmonics under formants, in syllables, with pauses and noise.

    Of a sequence, the step's part of one long recording; `hop` is the distance of two parts.
    """
    size = int(np.prod(spec["shape"]))
    hop = spec.get("hop", size)
    sound = _recording(hop * (moment.steps - 1) + size, spec["rate"], moment.rng())
    start = moment.step * hop
    return sound[start : start + size] * spec.get("scale", 1.0)


def _spectrum(spec: Spec, moment: Moment) -> Array:
    """Power spectra of voices in dB, times `scale` plus `offset`: frames × bins, mel or linear."""
    frames, bins = spec["frames"], spec["bins"]
    hop, window = spec.get("hop", 160), spec.get("window", 2 * (bins - 1))
    spectra = []
    for channel in range(int(np.prod(spec["shape"])) // (frames * bins)):
        sound = _recording(hop * (frames - 1) + window, spec["rate"], moment.rng(channel))
        parts = np.lib.stride_tricks.sliding_window_view(sound, window)[::hop]
        power = np.square(np.abs(np.fft.rfft(parts * np.hanning(window))))
        if spec.get("mel"):
            power = power @ _mel(power.shape[1], bins, spec["rate"])
        spectra.append(10 * np.log10(np.maximum(power, 1e-10)))
    return np.stack(spectra) * spec.get("scale", 1.0) + spec.get("offset", 0.0)


def _recording(size: int, rate: int, rng: np.random.Generator) -> Array:
    time = np.arange(size) / rate
    syllables = int(size / rate * 4) + 2
    turns = np.arange(syllables) / 4
    pitch = np.interp(time, turns, rng.uniform(90, 260) * rng.uniform(0.8, 1.25, syllables))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    loud = np.interp(time, turns, rng.uniform(0, 1, syllables) * (rng.random(syllables) > 0.25))
    formants = [np.interp(time, turns, rng.uniform(*band, syllables))
                for band in ((250, 850), (900, 2300), (2300, 3200))]  # fmt: skip
    sound = np.zeros(size)
    for harmonic in range(1, int(min(rate / 2, 4000) / 300)):
        gain = sum(1 / (1 + np.square((harmonic * pitch - f) / 150)) for f in formants)
        sound += gain * np.sin(harmonic * phase) / harmonic**0.5
    return 0.25 * loud * sound + rng.uniform(0.0005, 0.01) * rng.standard_normal(size)


def _mel(bins: int, bands: int, rate: int) -> Array:
    def to_mel(hertz: Array) -> Array:
        return 2595 * np.log10(1 + hertz / 700)

    place = to_mel(np.linspace(0, rate / 2, bins))[:, None]
    width = place[-1, 0] / (bands + 1)
    return np.maximum(0, 1 - np.abs(place / width - np.arange(1, bands + 1)))


# --- numbers --------------------------------------------------------------------------------------


def _normal(spec: Spec, moment: Moment) -> Array:
    values = moment.rng(moment.step).standard_normal(spec["shape"])
    return values * spec.get("std", 1.0) + spec.get("mean", 0.0)


def _ids(spec: Spec, moment: Moment) -> Array:
    """Integers from `low` to below `high`, the small ones more often, as the words of a text."""
    share = moment.rng(moment.step).random(spec["shape"]) ** 2
    return np.floor(spec["low"] + share * (spec["high"] - spec["low"]))


def _constant(spec: Spec, moment: Moment) -> Array:  # noqa: ARG001 - as all makers
    return np.full(spec["shape"], spec["value"])


def _file(spec: Spec, moment: Moment) -> Array:
    """The first and the last bytes of a file of Python's library, half of the input each."""
    half = spec["shape"][-1] // 2
    files = _library()
    content = files[moment.seed * 7919 % len(files)].read_bytes().strip()
    begin, end = (list(part) for part in (content[:half], content[-half:]))
    padding = [spec["padding"]] * (half - len(begin))
    return np.array([*begin, *padding, *padding, *end])


@functools.cache
def _library() -> list[Path]:
    folder = Path(sysconfig.get_paths()["stdlib"])
    return sorted(path for path in folder.glob("*.py") if path.stat().st_size)


MAKERS: Mapping[str, Callable[[Spec, Moment], Array]] = {
    "photo": _photo,
    "text": _text,
    "voice": _voice,
    "spectrum": _spectrum,
    "normal": _normal,
    "ids": _ids,
    "constant": _constant,
    "file": _file,
}
"""By the name that the manifest gives them."""
