"""Draw pictures for detectors of characters and readers of text: the same ones every time.

    python draw.py captchas|pages|lines FOLDER COUNT FIRST

Captchas are 416×416 at most, with characters turned and scattered over a picture of soft colors;
pages are 480×480 with some lines of text; lines are 320×48 with one. Fonts are DejaVu's, as Debian
has them (`fonts-dejavu`); without them that of Pillow.
"""

from __future__ import annotations

import string
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

FONTS = sorted(Path("/usr/share/fonts/truetype/dejavu").glob("*.ttf"))
CHARACTERS = string.ascii_uppercase + string.digits
WORDS = [
    "the", "of", "invoice", "total", "date", "amount", "order", "number", "street", "paid",
    "account", "item", "price", "quantity", "delivery", "reference", "customer", "balance",
    "payment", "from", "page", "report", "section", "table", "figure", "value",
]  # fmt: skip


def captcha(draws: np.random.Generator) -> Image.Image:
    """Three to six characters in any colors, over blobs of color and lines."""
    width, height = int(draws.integers(240, 417)), int(draws.integers(140, 417))
    image = _blobs(draws, width, height)
    pen = ImageDraw.Draw(image)
    for _ in range(int(draws.integers(0, 6))):
        ends = [int(draws.integers(0, side)) for side in (width, height, width, height)]
        pen.line(ends, fill=_color(draws), width=int(draws.integers(1, 4)))
    count = int(draws.integers(3, 7))
    for place in range(count):
        size = int(draws.integers(30, 64))
        glyph = Image.new("L", (size * 2, size * 2))
        text = str(draws.choice(list(CHARACTERS)))
        ImageDraw.Draw(glyph).text((size, size), text, 255, _font(draws, size), anchor="mm")
        glyph = glyph.rotate(float(draws.uniform(-40, 40)), Image.Resampling.BILINEAR)
        left = int(place * width / count + draws.integers(-size // 2, size // 4))
        top = int(draws.integers(-size // 2, height - size - size // 2))
        image.paste(_color(draws), (left, top), glyph)
    return image


def page(draws: np.random.Generator) -> Image.Image:
    """Lines of words in one or two sizes, dark on light, slightly blurred and noisy."""
    image = Image.new("RGB", (480, 480), tuple(draws.integers(190, 256, 3).tolist()))
    pen, top = ImageDraw.Draw(image), int(draws.integers(8, 60))
    while top < 440:
        size = int(draws.integers(12, 34))
        pen.text((int(draws.integers(6, 90)), top), _words(draws, int(draws.integers(1, 7))),
                 tuple(draws.integers(0, 110, 3).tolist()), _font(draws, size))  # fmt: skip
        top += size + int(draws.integers(6, 50))
    return _worn(draws, image)


def line(draws: np.random.Generator) -> Image.Image:
    """One line that fills the height; what is too long for the width is cut off."""
    image = Image.new("RGB", (320, 48), tuple(draws.integers(170, 256, 3).tolist()))
    text = _words(draws, int(draws.integers(1, 4)))
    if draws.random() < 0.4:
        text += f" {int(draws.integers(0, 100000))}"
    color = tuple(draws.integers(0, 110, 3).tolist())
    font = _font(draws, int(draws.integers(20, 36)))
    ImageDraw.Draw(image).text((6, 24), text, color, font, anchor="lm")
    return _worn(draws, image)


def _blobs(draws: np.random.Generator, width: int, height: int) -> Image.Image:
    small = draws.integers(40, 256, (int(draws.integers(2, 8)), int(draws.integers(2, 8)), 3))
    image = Image.fromarray(small.astype(np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return _noisy(draws, image, float(draws.uniform(2, 18)))


def _worn(draws: np.random.Generator, image: Image.Image) -> Image.Image:
    blurred = image.filter(ImageFilter.GaussianBlur(float(draws.uniform(0, 0.8))))
    return _noisy(draws, blurred, float(draws.uniform(0, 10)))


def _noisy(draws: np.random.Generator, image: Image.Image, deviation: float) -> Image.Image:
    pixels = np.asarray(image) + draws.normal(0, deviation, (image.height, image.width, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _color(draws: np.random.Generator) -> tuple[int, ...]:
    return tuple(draws.integers(0, 256, 3).tolist())


def _words(draws: np.random.Generator, count: int) -> str:
    words = " ".join(draws.choice(WORDS, count).tolist())
    return words.capitalize() if draws.random() < 0.5 else words


def _font(draws: np.random.Generator, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if not FONTS:
        return ImageFont.load_default(size=size)
    return ImageFont.truetype(FONTS[int(draws.integers(len(FONTS)))], size)


KINDS: dict[str, Callable[[np.random.Generator], Image.Image]] = {
    "captchas": captcha,
    "pages": page,
    "lines": line,
}


def main(kind: str, folder: str, count: str, first: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    for number in range(int(first), int(first) + int(count)):
        KINDS[kind](np.random.default_rng(number)).save(Path(folder) / f"{number:04}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
