"""A folder of files, some of them bad: nothing stops, and exactly the bad ones are named."""

import re

import numpy as np
import pytest
from PIL import Image

from fastctc import cli

NOT_READABLE = "not a readable image"
BAD = {
    "empty.png": NOT_READABLE,
    "text.png": NOT_READABLE,
    "truncated.png": NOT_READABLE,
    "truncated.jpg": NOT_READABLE,
    "folder.png": NOT_READABLE,
    "missing.png": "no such file",
    "wide.png": "image of 200000x40 pixels would be",
}
GOOD = ("animated.gif", "cmyk.jpg", "deep.png", "rgba.png")
COUNT = 150  # more than a batch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bad")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 120), dtype=np.uint8))
    picture.convert("CMYK").save(path / "cmyk.jpg")
    picture.convert("RGBA").save(path / "rgba.png")
    picture.save(path / "animated.gif", save_all=True, append_images=[picture.rotate(180)], duration=100)
    Image.fromarray(np.asarray(picture).astype(np.uint16) * 257).save(path / "deep.png")
    assert Image.open(path / "animated.gif").n_frames == 2 and Image.open(path / "deep.png").mode == "I;16"
    Image.new("L", (200_000, 40)).save(path / "wide.png")
    picture.save(path / "truncated.jpg")
    picture.save(path / "truncated.png")
    for name in ("truncated.jpg", "truncated.png"):
        content = (path / name).read_bytes()
        (path / name).write_bytes(content[: len(content) // 2])
    (path / "empty.png").touch()
    (path / "text.png").write_text("1+1=2\n" * 100)
    (path / "folder.png").mkdir()
    names = [*BAD, *GOOD]
    for i in range(COUNT - len(names)):
        names.append(f"{i:03d}.png")
        picture.resize((64 + i % 40, 32)).save(path / names[-1])
    names.sort()
    (path / "labels.txt").write_text("".join(f"{name} {i % 10}+1\n" for i, name in enumerate(names)))
    return path


def train(folder, out) -> str:
    """Train for two steps and return the checkpoint."""
    command = ["train", "--data", str(folder), "--out", str(out), "--steps", "2", "--batch-size", "4"]
    command += ["--height", "32", "--eval-images", "4", "--threads", "1", "--precision", "fp32"]
    assert cli.main(command) == 0
    return str(out / "model.safetensors")


@pytest.fixture(scope="module")
def model(folder, tmp_path_factory):
    return train(folder, tmp_path_factory.mktemp("run"))


def named(lines: list[str], prefix: str = "") -> dict[str, str]:
    """Return the reason for each name, in lines of a prefix, a name, a colon and a reason."""
    matches = [re.fullmatch(re.escape(prefix) + r"(\S+?): (.*)", line) for line in lines]
    return dict(match.groups() for match in matches if match)


def assert_bad_ones(reasons: dict[str, str]) -> None:
    assert set(reasons) == set(BAD)
    for name, reason in reasons.items():
        assert reason.startswith(BAD[name]), (name, reason)


def test_training_names_them(folder, tmp_path, caplog):
    caplog.set_level("INFO")
    train(folder, tmp_path)
    messages = [record.getMessage() for record in caplog.records]
    assert_bad_ones(named(messages, "left out: "))
    assert "7 samples were left out" in messages


@pytest.mark.slow
def test_evaluating_names_them(folder, model, capsys):
    assert cli.main(["evaluate", model, str(folder)]) == 1
    out, err = capsys.readouterr()
    assert f"of {COUNT - len(BAD)})" in out
    assert_bad_ones(named(err.splitlines()))
    assert f"{len(BAD)} of {COUNT} images could not be read" in err


@pytest.mark.slow
def test_reading_names_them(folder, model, capsys):
    given = [str(folder), str(folder / "missing.png"), str(folder / "folder.png")]
    assert cli.main(["read", "--checkpoint", model, *given]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == COUNT - len(BAD)
    assert all(f"{folder / name}\t" in out for name in GOOD)
    reasons = named(err.splitlines(), f"{folder}/")
    assert reasons.pop("folder.png") == "no image in this folder"
    assert_bad_ones(reasons | {"folder.png": NOT_READABLE})
    assert f"{len(BAD)} of {COUNT} could not be read" in err
