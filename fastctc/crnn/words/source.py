"""Series of drawn texts, and the settings they are drawn by in a training recipe."""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from PIL import Image, ImageOps

from fastctc.crnn.data import DrawConfig, KeyedSource, Pixels, at_least, hash_of_code, setting
from fastctc.crnn.words.faces import Face, can_draw, find_faces, has_one_case
from fastctc.crnn.words.grounds import photographs
from fastctc.crnn.words.picture import draw_text
from fastctc.crnn.words.texts import SIGNS, TextDraw, letters_of, word_list

_TRIES = 50


def _is_size(text: str) -> bool:
    return re.fullmatch(r"[1-9]\d{0,3}x[1-9]\d{0,3}", text) is not None


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


@dataclass(frozen=True)
class WordSource:
    """An endless series of pictures of texts: ``source(i)`` is number ``i``, in any process and any order.

    Args:
        draw: how they are drawn.
        seed: which series.
        color: give RGB pictures instead of gray arrays of uint8.
    """

    draw: WordDraw
    seed: int = 0
    color: bool = False

    def __call__(self, i: int) -> tuple[Image.Image | Pixels, str]:
        """Return picture number ``i`` and the text on it."""
        rng = random.Random(f"{self.seed}/words/{i}")
        text, face = self._text(rng)
        image = draw_text(text, face, self.draw.look, self._photos, rng)
        if self.draw.canvas is not None:
            ground = cast("tuple[int, int, int]", image.getpixel((0, 0)))
            image = ImageOps.pad(image, _size(self.draw.canvas), Image.Resampling.BICUBIC, color=ground)
        return (image if self.color else np.asarray(image.convert("L"))), text

    def key(self) -> dict[str, Any]:
        """Return what the pictures depend on: the settings, the code, and the fonts, words and photographs."""
        things = hashlib.sha256()
        for face in self._faces:
            things.update(
                f"{Path(face.path).name} {Path(face.path).stat().st_size} {face.instance}\n".encode()
            )
        for path in self._photos:
            things.update(f"{path.name} {path.stat().st_size}\n".encode())
        things.update("\n".join(self._texts.words).encode())
        return {
            "drawn": repr(self),
            "code": hash_of_code(Path(__file__).parent),
            "things": things.hexdigest(),
        }

    def _text(self, rng: random.Random) -> tuple[str, Face]:
        """Return a text and a face that can draw it; in capitals if nobody could tell their case in this face."""
        for _ in range(_TRIES):
            text, face = self._texts(rng), rng.choice(self._faces)
            if all(can_draw(face.path, character) for character in text):
                return (text.upper() if has_one_case(face.path) else text), face
        raise ValueError(f"fonts lack characters of the texts, such as {text!r}")

    @cached_property
    def _faces(self) -> tuple[Face, ...]:
        return find_faces(self.draw.fonts, self.draw.part)

    @cached_property
    def _photos(self) -> tuple[Path, ...]:
        return photographs(self.draw.grounds)

    @cached_property
    def _texts(self) -> TextDraw:
        return self.draw.text_draw()

    def __getstate__(self) -> dict[str, Any]:
        return {"draw": self.draw, "seed": self.seed, "color": self.color}


@dataclass(frozen=True)
class WordDraw(DrawConfig):
    """How words and lines are drawn to train on.

    Attributes:
        images: how many images are drawn before training. None: what can be drawn in a fifth of the minutes.
        rounds: how many times, evenly over the run, the images are replaced by as many new ones.
        words: text file with one word a line, in place of frequent words of ten languages, of ``wordfreq``.
        fonts: folder of fonts, in place of the fonts of installed packages and of matplotlib.
        grounds: folder of photographs to write on, in place of those that installed packages bring along.
        look: clean print, scenes of the world, or both.
        texts: words, numbers, codes, lines of words, or all of these (``"mixed"``); ``"list"``: the lines of the
            file of words as they are.
        longest: characters of a text at most.
        canvas: size such as ``256x64`` into which each image is fitted, in the middle of a ground of the color of
            its corner. None: as large as the text is drawn.
        part: a tenth of words and of font families is ``unseen``: it is kept for measuring accuracy.
    """

    words: str | None = setting(None, metavar="FILE")
    fonts: str | None = setting(None, metavar="DIR")
    grounds: str | None = setting(None, metavar="DIR")
    look: Literal["mixed", "clean", "scene"] = setting("mixed")
    texts: Literal["mixed", "words", "numbers", "codes", "lines", "list"] = setting("mixed")
    longest: int = setting(25, metavar="N", **at_least(1))
    canvas: str | None = setting(None, _is_size, "WIDTHxHEIGHT, such as 256x64", metavar="SIZE")
    part: Literal["seen", "unseen"] = setting("seen")

    @property
    def characters(self) -> str:
        """Return the letters of the words in both cases, digits, signs of ASCII and the space."""
        return "".join(sorted(set(SIGNS + letters_of(self.words))))

    def source(self, seed: int, *, color: bool = False) -> KeyedSource:
        """Return an endless series of texts: gray arrays, or RGB pictures."""
        return WordSource(self, seed, color)

    def text_draw(self) -> TextDraw:
        """Return what makes the texts."""
        return TextDraw(word_list(self.words, self.part), letters_of(self.words), self.texts, self.longest)

    def unseen(self) -> WordDraw:
        """Return the same with words and fonts that no training image shows."""
        return replace(self, part="unseen")
