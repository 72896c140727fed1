"""Words: lines of text in many fonts on many grounds, and the model that reads them."""

from pathlib import Path

from fastctc.crnn.data import Domain, LanguageModel
from fastctc.crnn.words.faces import Face, find_faces
from fastctc.crnn.words.grounds import photographs
from fastctc.crnn.words.picture import draw_text
from fastctc.crnn.words.presets import PRESETS
from fastctc.crnn.words.source import WordDraw, WordSource
from fastctc.crnn.words.texts import KINDS, kind, word_list

DOMAIN = Domain(
    name="words",
    draw=WordDraw,
    kind=kind,
    kinds=KINDS,
    constraints={},
    checkpoints={"words": Path(__file__).with_name("words.safetensors")},
    language=LanguageModel(Path(__file__).with_name("words.arpa.gz"), weight=0.3, bonus=0.75),
    second_look=0.5,
)
"""The domain of words: any printable text of one line."""

__all__ = [
    "DOMAIN",
    "KINDS",
    "PRESETS",
    "Face",
    "WordDraw",
    "WordSource",
    "draw_text",
    "find_faces",
    "kind",
    "photographs",
    "word_list",
]
