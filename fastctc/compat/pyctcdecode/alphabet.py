"""The labels of pyctcdecode: how it normalizes them, and how they spell words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from fastctc.errors import ArgumentTypeError, ArgumentValueError

__all__ = ["Alphabet"]

WORD_BEGIN = "▁"  # in front of the first piece of a word
UNKNOWN, UNKNOWN_PIECE = "⁇", "▁⁇▁"
PADDING = re.compile(r"[<\[]pad[>\]]", re.IGNORECASE)
UNKNOWN_LABEL = re.compile(r"[<\[]unk[>\]]", re.IGNORECASE)
SPECIAL = re.compile(r"[<\[].+[>\]]")
MOST_SPELLINGS = 8  # of a word


class Alphabet:
    """The string of each class: ``""`` for the blank, and ``" "`` or a leading ``"▁"`` between words.

    Args:
        labels: normalized labels, see :meth:`build_alphabet`.
        is_bpe: whether ``"▁"`` begins words.
    """

    def __init__(self, labels: Sequence[str], is_bpe: bool) -> None:
        self._labels, self._is_bpe = list(labels), is_bpe
        if self._labels.count("") != 1:
            raise ArgumentValueError(f"labels has {self._labels.count('')} blanks '', expected one")
        self._class_of = {label: number for number, label in enumerate(self._labels) if label}
        self._longest = max(map(len, self._class_of), default=0)

    @classmethod
    def build_alphabet(cls, labels: Sequence[str]) -> Alphabet:
        """Return the alphabet of labels as a tokenizer has them.

        The alphabet is of the BPE kind if a label begins with ``"▁"`` or ``"##"``.

        - ``<pad>`` and ``[pad]`` become the blank ``""``. If there is none, ``"_"`` becomes it, but
          not of the BPE kind. If it is still missing, it is appended.
        - ``"|"`` becomes ``" "`` if there is no ``" "``.
        - ``<unk>`` and ``[unk]`` become ``"⁇"``, of the BPE kind ``"▁⁇▁"``.
        - If there are labels with a leading ``"##"``, they lose it, and the others get a leading ``"▁"``.

        Raises:
            TypeError: labels are not strings.
            ValueError: a label occurs twice, or one of the BPE kind has a space.
        """
        if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
            raise ArgumentTypeError(f"labels must be a sequence of str, got {labels!r:.60}")
        names = list(labels)
        repeated = (
            sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        )
        if repeated:
            raise ArgumentValueError(f"labels has {repeated[0]!r} more than once, expected different labels")
        is_bpe = any(name.startswith(("##", WORD_BEGIN)) for name in names)
        if is_bpe and any(" " in name for name in names):
            raise ArgumentValueError("labels has a label with a space, expected none with '##' or '▁' labels")
        return cls(_normalized(names, is_bpe), is_bpe)

    @property
    def is_bpe(self) -> bool:
        """Return True if ``"▁"`` begins words."""
        return self._is_bpe

    @property
    def labels(self) -> list[str]:
        """Return a copy of the labels."""
        return self._labels[:]

    @property
    def blank(self) -> int:
        """Return the class of the blank."""
        return self._labels.index("")

    @property
    def separator(self) -> int | None:
        """Return the class between words: without a space one that never occurs, for the BPE kind None."""
        if self._is_bpe:
            return None
        return self._class_of.get(" ", len(self._labels))

    @property
    def word_begin(self) -> list[int]:
        """Return the classes that begin a word."""
        return [number for label, number in self._class_of.items() if label.startswith(WORD_BEGIN)]

    @property
    def bare_word_begin(self) -> int | None:
        """Return the class ``"▁"``, which may also stand alone; None without one."""
        return self._class_of.get(WORD_BEGIN) if self._is_bpe else None

    def text(self, tokens: Iterable[int]) -> str:
        """Return the words of tokens with one space between them."""
        text = "".join(self._labels[token] for token in tokens)
        return " ".join((text.replace(WORD_BEGIN, " ") if self._is_bpe else text).split())

    def spellings(self, word: str) -> list[tuple[int, ...]]:
        """Return at most 8 ways to spell a word, the fewest pieces first."""
        text = WORD_BEGIN + word if self._is_bpe else word
        if self._longest == 1:
            try:
                return [tuple([self._class_of[character] for character in text])]
            except KeyError:
                return []
        ways: list[list[tuple[int, ...]]] = [[()]]
        for end in range(1, len(text) + 1):
            found = [
                (*before, number)
                for begin in range(max(0, end - self._longest), end)
                if (number := self._class_of.get(text[begin:end])) is not None
                for before in ways[begin]
            ]
            ways.append(sorted(found, key=len)[:MOST_SPELLINGS])
        return ways[-1]

    def dumps(self) -> str:
        """Return the alphabet as JSON."""
        return json.dumps({"labels": self._labels, "is_bpe": self._is_bpe})

    @classmethod
    def loads(cls, text: str) -> Alphabet:
        """Return the alphabet that :meth:`dumps` wrote.

        Raises:
            ValueError: the text is no JSON with the keys ``labels`` and ``is_bpe``.
        """
        values = json.loads(text)
        if not isinstance(values, dict) or set(values) != {"labels", "is_bpe"}:
            raise ArgumentValueError(f"expected JSON with the keys 'labels' and 'is_bpe', got {text!r:.80}")
        return cls(values["labels"], values["is_bpe"])


def _normalized(names: list[str], is_bpe: bool) -> list[str]:
    """Return labels with the blank, the space and the unknown label of pyctcdecode."""
    if is_bpe and any(name.startswith("##") for name in names):
        names = [_as_piece(name) for name in names]
    if not is_bpe and " " not in names:
        names = [" " if name == "|" else name for name in names]
    names = ["" if PADDING.fullmatch(name) else name for name in names]
    if not is_bpe and "" not in names:
        names = ["" if name == "_" else name for name in names]
    if "" not in names:
        names = [*names, ""]
    return [
        (UNKNOWN_PIECE if is_bpe else UNKNOWN) if UNKNOWN_LABEL.fullmatch(name) else name for name in names
    ]


def _as_piece(name: str) -> str:
    """Return a WordPiece label in the style of SentencePiece."""
    if name.startswith("##"):
        return name[2:]
    return name if SPECIAL.fullmatch(name) or name in ("", WORD_BEGIN, UNKNOWN_PIECE) else WORD_BEGIN + name
