"""Train a recognizer on your own images, then read with it.

A folder holds the images and labels.tsv, one line an image: file name, tab, text. Here the folder is filled
with drawn formulas; put your own images there instead, of any size, with any characters.

    python examples/train_recognizer.py runs/example --minutes 3
"""

import argparse
from pathlib import Path

from fastctc.crnn import FormulaSource, Recognizer, ScheduleConfig, TrainConfig, train, write_folder

parser = argparse.ArgumentParser(description="Train a recognizer on a folder of images, then read with it.")
parser.add_argument("out", type=Path)
parser.add_argument("--images", type=int, default=5000)
parser.add_argument("--minutes", type=float, default=3.0)


def main(out: Path, images: int, minutes: float) -> None:
    """Write a folder of images, train on it, and read three of them."""
    folder = out / "data"
    write_folder(FormulaSource(look="contest", renderer="glyphs", seed=1), folder, images)

    config = TrainConfig(data=str(folder), schedule=ScheduleConfig(steps=None, minutes=minutes))
    result = train(config, out / "run")
    print(f"unseen images: {result.evaluation.summary()}")

    recognizer = Recognizer.load(result.checkpoint)
    paths = sorted(folder.glob("*.png"))[:3]
    for path, reading in zip(paths, recognizer.read(paths), strict=True):
        print(f"{path}  {reading.text}  log-probability {reading.score:.3f}")


if __name__ == "__main__":
    arguments = parser.parse_args()
    main(arguments.out, arguments.images, arguments.minutes)
