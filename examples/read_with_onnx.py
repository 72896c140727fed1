"""Read images with an exported model: numpy, Pillow and onnxruntime, neither PyTorch nor fastctc.

    fastctc export formula formula.onnx
    python examples/read_with_onnx.py formula.onnx formula.png another.jpg

All that is done to an image is in the file's metadata, in numbers and in words: json["preprocess"], json["steps"].
It leaves out the steps for dithered, framed and uneven grounds, and for white ink on transparency.
"""

import argparse
import json
import math
from itertools import groupby

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

parser = argparse.ArgumentParser(description="Read images with a model that fastctc exported as ONNX.")
parser.add_argument("model", help="what fastctc export wrote")
parser.add_argument("images", nargs="+", help="image files with 8 bits a channel")

SETTINGS = {"ink", "height", "max_width", "max_pixels", "tone", "tone_floor", "contrast_floor", "crop"}


class Reader:
    """An exported model with its description, on as many threads; 0: one for each core."""

    def __init__(self, path: str, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        description = json.loads(self.session.get_modelmeta().custom_metadata_map["fastctc"])
        self.classes, self.settings = description["classes"], description["preprocess"]
        others = [name for name, value in self.settings.items() if name not in SETTINGS and value]
        if others:
            raise ValueError(f"the model wants filters that this example does not have: {', '.join(others)}")

    def read(self, images: list[Image.Image]) -> list[str]:
        """Return the most probable text of each image, all in one batch."""
        grays = [self.prepare(image) for image in images]
        widths = np.array([gray.shape[1] for gray in grays])
        batch = np.zeros((len(grays), 1, self.settings["height"], widths.max()), dtype=np.uint8)
        for n, gray in enumerate(grays):
            batch[n, 0, :, : widths[n]] = gray
        log_probs, lengths = self.session.run(None, {"images": batch, "widths": widths})
        best = log_probs.argmax(2)
        return [
            "".join(self.classes[c] for c, _ in groupby(path[:length])) for path, length in zip(best, lengths)
        ]

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Return the gray levels that the model takes, (height, W) uint8."""
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"the image has mode {image.mode}, this example takes 8 bits a channel")
        if image.mode == "1":
            raise ValueError("the image has 1 bit a pixel, this example does not smooth dithered grounds")
        if "A" in image.mode.upper() or "transparency" in image.info:  # transparent parts become white
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        gray = image if image.mode == "L" else image.convert("RGB").convert("L")

        if self.settings["tone"]:
            gray = self.with_tone_curve(gray)
        if self.settings.get("crop"):
            gray = self.cropped(gray)
        height = self.settings["height"]
        width = max(1, round(gray.width * height / gray.height))
        if width > self.settings["max_width"]:
            raise ValueError(f"the image would be {width} wide, the limit is {self.settings['max_width']}")
        return np.asarray(gray.resize((width, height), Image.Resampling.BILINEAR))

    def with_tone_curve(self, gray: Image.Image) -> Image.Image:
        """Return the image with a white background and its strongest ink black."""
        histogram = np.array(gray.histogram())
        total = np.cumsum(histogram)
        difference = np.arange(256) - int(np.searchsorted(total, total[-1] / 2))
        sides = np.maximum(0, -difference), np.maximum(0, difference)
        ink = max(sides, key=lambda side: int(histogram @ side**2))
        share = np.clip(ink / max(ink[histogram > 0].max(), self.settings["tone_floor"]), 0, 1)
        return gray.point(np.rint(255 * (1 - share ** self.settings["tone"])).astype(int).tolist())

    def cropped(self, gray: Image.Image) -> Image.Image:
        """Return the rows of the text, without most of the empty ones above and below."""
        scale = -(-gray.height // 128)
        pixels = np.asarray(gray.reduce(scale) if scale > 1 else gray, dtype=np.int16)
        height, width = pixels.shape
        if min(pixels.shape) < 8:
            return gray
        edges = np.sort(np.abs(pixels[:, 2:] - pixels[:, :-2]), axis=1)
        strength = edges[:, -max(2, height // 16) :].mean(1)
        text = np.flatnonzero(strength >= max(0.3 * np.quantile(strength, 0.9), 4.0))
        if not len(text):
            return gray
        first, last = int(text[0]), int(text[-1]) + 1
        narrow = width * self.settings["height"] / self.settings["max_width"] + 1
        rows = max((last - first) * 1.16 + 2, height / 4, height * height / width, narrow)
        if rows > 0.9 * height:
            return gray
        top = min(max(0, (first + last - rows) / 2), height - rows)
        bottom = min(gray.height, math.ceil(scale * (top + rows)))
        return gray.crop((0, int(scale * top), gray.width, bottom))


def main(model: str, images: list[str]) -> None:
    """Print a line per image: its path, a tab, its text."""
    texts = Reader(model).read([Image.open(path) for path in images])
    for path, text in zip(images, texts):
        print(f"{path}\t{text}")


if __name__ == "__main__":
    main(**vars(parser.parse_args()))
