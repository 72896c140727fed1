"""Draw a folder of labeled images, to have something to train on: prices, dates and numbers as on receipts.

    python docs/training/draw_receipts.py data/receipts --count 3000 --seed 1
    python docs/training/draw_receipts.py data/receipts-test --count 500 --seed 2

The fonts are the DejaVu fonts that matplotlib brings along. The same seed draws the same images.
"""

import argparse
import random
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFilter, ImageFont

FONTS = sorted((Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("DejaVuS*[!y].ttf"))

parser = argparse.ArgumentParser(description="Draw prices, dates and numbers as on receipts.")
parser.add_argument("folder", type=Path)
parser.add_argument("--count", type=int, default=3000)
parser.add_argument("--seed", type=int, default=1)


def random_text(rng: random.Random) -> str:
    """Return a price, a date or a number."""
    kind = rng.randrange(3)
    if kind == 0:
        return f"${rng.randint(0, rng.choice([99, 9999])):,}.{rng.randint(0, 99):02}"
    if kind == 1:
        return f"{rng.randint(2015, 2030)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
    return f"No. {rng.randint(1000, 99999)}"


def draw(text: str, rng: random.Random) -> Image.Image:
    """Return a gray image of one line of text: another font, size, ink and tilt each time."""
    font = ImageFont.truetype(str(rng.choice(FONTS)), rng.randint(20, 36))
    left, top, right, bottom = font.getbbox(text)
    paper, ink = rng.randint(200, 255), rng.randint(0, 150)
    image = Image.new("L", (int(right - left) + 24, int(bottom - top) + 20), paper)
    ImageDraw.Draw(image).text((12 - left, 10 - top), text, font=font, fill=ink)
    image = image.rotate(rng.uniform(-2, 2), Image.Resampling.BILINEAR, fillcolor=paper)
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.2)))
    grain = Image.effect_noise(image.size, rng.uniform(10, 40))
    return Image.blend(image, grain, 0.12)


def main(folder: Path, count: int, seed: int) -> None:
    """Write the images and labels.tsv: one line for each image, its file name, a tab, its text."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    lines = []
    for index in range(count):
        text = random_text(rng)
        draw(text, rng).save(folder / f"{index:05}.png")
        lines.append(f"{index:05}.png\t{text}\n")
    (folder / "labels.tsv").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(**vars(parser.parse_args()))
