"""Reading lines of text by ``fastctc.crnn.Recognizer`` against other recognizers that pip or a system installs.

Images are drawn in memory: formulas, words in clean print, words in scenes. Unseen means words and fonts that no
model of fastctc was trained on. One thread. All sides get the same pictures, and each reads them as it likes best:

    fastctc       64 images at once, or one at a time; bf16 where the processor multiplies it; with its own second
                  look, another one or none; greedily, as its ONNX export is read
    onnx          fastctc's model exported, read by ONNX Runtime as examples/read_with_onnx.py does
    rapidocr      the recognizer of rapidocr_onnxruntime alone (PP-OCRv4), in its batches of 6
    ddddocr       its default model, image by image
    tesseract     a line for each picture (--psm 7), one process for all

Accuracy is the share of texts read without a mistake, and the same for letters and digits without case. A
recognizer of other languages or of other pictures is not at its best here: the table gives both figures.
"""

from __future__ import annotations

import argparse
import datetime
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import torch
from PIL import Image

import report
from fastctc.crnn import FormulaSource, Recognizer, WordDraw, export_onnx, load_checkpoint
from fastctc.crnn.training import fast_precision

EXAMPLES = """examples:
  python benchmarks/bench_reading.py --quick                     does it run?
  python benchmarks/bench_reading.py --out benchmarks/results    needs pip install rapidocr_onnxruntime ddddocr
"""
Read = Callable[[list[Image.Image]], list[str]]
KINDS: dict[str, tuple[str, Callable[[int], tuple[Any, str]]]] = {
    "formulas": ("formula", FormulaSource(look="contest")),
    "words in print": ("words", WordDraw(look="clean", texts="words", part="unseen").source(7, color=True)),
    "words in scenes": ("words", WordDraw(look="scene", texts="words", part="unseen").source(8, color=True)),
}


def ours(
    checkpoint: str,
    precision: str = "fp32",
    *,
    single: bool = False,
    greedy: bool = False,
    second_look: float | None = None,
) -> Read:
    recognizer = Recognizer.load(checkpoint, precision=precision, second_look=second_look)
    scorer = () if greedy else None
    if single:
        return lambda images: [recognizer.read(image, scorer=scorer).text for image in images]
    return lambda images: [reading.text for reading in recognizer.read(images, scorer=scorer)]


def onnx(checkpoint: str, folder: Path) -> Read:
    sys.path.append(str(Path(__file__).parents[1] / "examples"))
    from read_with_onnx import Reader

    export_onnx(load_checkpoint(checkpoint), folder / f"{checkpoint}.onnx")
    reader = Reader(str(folder / f"{checkpoint}.onnx"), threads=1)
    return lambda images: [reader.read([image])[0] for image in images]


def rapidocr() -> Read:
    from rapidocr_onnxruntime import RapidOCR

    recognizer = RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1).text_rec

    def read(images: list[Image.Image]) -> list[str]:
        found, _ = recognizer(
            [np.ascontiguousarray(np.asarray(image.convert("RGB"))[..., ::-1]) for image in images]
        )
        return [each[0] for each in found]

    return read


def ddddocr() -> Read:
    from ddddocr import DdddOcr

    recognizer = DdddOcr(show_ad=False)

    def read(images: list[Image.Image]) -> list[str]:
        texts = []
        for image in images:
            buffer = io.BytesIO()
            image.save(buffer, "BMP")
            texts.append(recognizer.classification(buffer.getvalue()))
        return texts

    return read


def tesseract(folder: Path) -> Read:
    def read(images: list[Image.Image]) -> list[str]:
        paths = [folder / f"{number}.bmp" for number in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            image.save(path)
        (folder / "list.txt").write_text("\n".join(map(str, paths)))
        out = subprocess.run(
            ["tesseract", str(folder / "list.txt"), "-", "--psm", "7"],
            capture_output=True, text=True, check=True, env={**os.environ, "OMP_THREAD_LIMIT": "1"},
        ).stdout  # fmt: skip
        return [page.strip() for page in out.split("\f")[: len(images)]]

    return read


def sides(checkpoint: str, folder: Path) -> dict[str, Read]:
    """Return the recognizers that are installed."""
    found = {
        "fastctc": ours(checkpoint),
        "fastctc, one image at a time": ours(checkpoint, single=True),
        "fastctc, without a second look": ours(checkpoint, second_look=0.0),
        "fastctc, greedy, without a second look, one image at a time": ours(
            checkpoint, single=True, greedy=True, second_look=0.0
        ),
    }
    if fast_precision("cpu", "vgg-bilstm") == "bf16":
        found["fastctc, bf16"] = ours(checkpoint, "bf16")
        found["fastctc, bf16, one image at a time"] = ours(checkpoint, "bf16", single=True)
    if find_spec("onnxruntime") and find_spec("onnxscript"):
        found["its ONNX, one image at a time"] = onnx(checkpoint, folder)
    if find_spec("rapidocr_onnxruntime"):
        found["rapidocr"] = rapidocr()
    if find_spec("ddddocr"):
        found["ddddocr"] = ddddocr()
    if which("tesseract"):
        found["tesseract"] = tesseract(folder)
    return found


def alphanumeric(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))


def share(found: Iterable[str], right: Iterable[str]) -> float:
    equal = [a == b for a, b in zip(found, right, strict=True)]
    return sum(equal) / len(equal)


def measure(kind: str, count: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Return the accuracy and the milliseconds an image of each side on one kind of image."""
    checkpoint, source = KINDS[kind]
    drawn = [source(number) for number in range(count)]
    images = [image if isinstance(image, Image.Image) else Image.fromarray(image) for image, _ in drawn]
    texts = [text for _, text in drawn]
    readers = sides(checkpoint, folder)
    times: dict[str, list[float]] = {name: [] for name in readers}
    found: dict[str, list[str]] = {}
    for turn in range(rounds):
        for name in list(readers)[:: 1 if turn % 2 else -1]:
            if not turn:
                readers[name](images[:8])
            began = time.perf_counter()
            found[name] = readers[name](images)
            times[name].append(1e3 * (time.perf_counter() - began) / count)
    if found["fastctc"] != found["fastctc, one image at a time"]:
        raise SystemExit("fastctc reads an image differently in a batch")
    return {
        name: {
            "exact": share(found[name], texts),
            "alphanumeric": share(map(alphanumeric, found[name]), map(alphanumeric, texts)),
            "milliseconds": sorted(times[name])[rounds // 2],
        }
        for name in readers
    }


def markdown(result: dict[str, Any]) -> str:
    machine = result["machine"]
    what = f"Reading, one thread, {result['count']} unseen images of each kind"
    columns = [
        "images",
        "reader",
        "exact",
        "letters and digits, without case",
        "ms an image",
        "times fastctc's",
    ]
    lines = []
    for kind, rows in result["rows"].items():
        for name, row in rows.items():
            shares = [f"{row[each]:.1%}" for each in ("exact", "alphanumeric")]
            ratio = row["milliseconds"] / rows["fastctc"]["milliseconds"]
            lines.append([kind, name, *shares, f"{row['milliseconds']:.2f}", f"{ratio:.2f}"])
    where = f"{machine['cpu']}, {machine['instruction_set']}"
    return "\n".join([f"{what}, {where}.", "", *report.table(columns, lines)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few images, one round")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="default: all")
    parser.add_argument("--count", type=int, default=256, help="images of a kind, default: %(default)s")
    parser.add_argument("--out", type=Path, help="folder for the result, a .json and a .md file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    count, rounds = (16, 1) if arguments.quick else (arguments.count, 3)
    with tempfile.TemporaryDirectory() as folder:
        rows = {kind: measure(kind, count, rounds, Path(folder)) for kind in arguments.kinds}
    result = {
        "benchmark": "reading", "date": str(datetime.date.today()), "quick": arguments.quick, "count": count,
        "versions": report.describe_versions(), "machine": report.describe_machine(torch.device("cpu")),
        "rows": rows,
    }  # fmt: skip
    text = markdown(result)
    print(text)
    if arguments.out:
        print(report.write(arguments.out, result, text))


if __name__ == "__main__":
    main()
