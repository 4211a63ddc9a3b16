"""Draw pictures for a detector of characters: a folder of PNG, and a folder of YOLO's .txt labels.

python characters.py FOLDER COUNT FIRST
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CHARACTERS = "ABCDEFGHKLMNPRSTUVWXYZ23456789"


def picture(number: int) -> tuple[Image.Image, list[str]]:
    """Four characters somewhere on a noisy slope of colors; a line `class x y width height` each."""
    draws = np.random.default_rng(number)
    width, height = int(draws.integers(280, 420)), int(draws.integers(140, 260))
    light, dark = draws.integers(150, 256, 3), draws.integers(60, 160, 3)
    slope = np.linspace(0, 1, width)[None, :, None]
    pixels = light * (1 - slope) + dark * slope + draws.normal(0, 12, (height, width, 3))
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    pen, lines = ImageDraw.Draw(image), []
    for place in range(4):
        font = ImageFont.load_default(size=int(draws.integers(36, 64)))
        text = str(draws.choice(list(CHARACTERS)))
        corner = (10 + place * (width - 20) // 4, int(draws.integers(5, height - 80)))
        pen.text(corner, text, font=font, fill=tuple(draws.integers(0, 90, 3).tolist()))
        left, top, right, bottom = pen.textbbox(corner, text, font=font)
        box = ((left + right) / 2 / width, (top + bottom) / 2 / height,
               (right - left) / width, (bottom - top) / height)  # fmt: skip
        lines.append("0 " + " ".join(f"{each:.5f}" for each in box))
    return image, lines


def main(folder: str, count: str, first: str) -> None:
    images, labels = Path(folder) / "images", Path(folder) / "labels"
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(exist_ok=True)
    for number in range(int(first), int(first) + int(count)):
        image, lines = picture(number)
        image.save(images / f"{number:04}.png")
        (labels / f"{number:04}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


main(*sys.argv[1:])
