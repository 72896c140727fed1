"""Right-to-left text: visual order for the network, logical order out."""

import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastctc import Alphabet
from fastctc.crnn.data import PreprocessConfig, VisualAlphabet, direction_for, make_alphabet, with_mirrored
from fastctc.crnn.data.visual_order import to_logical, to_visual
from fastctc.crnn.model import CRNN, Checkpoint, CRNNConfig, load_checkpoint, save_checkpoint

HEBREW = "אבגדהוזחטיכלמנסעפצקרשת"
ARABIC = "ابتثجحخدذرزسشصضطظعغفقكلمنهوي"


@pytest.mark.parametrize(
    ("logical", "visual"),
    [
        ("שלום", "םולש"),
        ("שלום 123", "123 םולש"),
        ("123 שלום", "םולש 123"),
        ("מחיר 12.50 שח", "חש 12.50 ריחמ"),
        ("(שלום)", "(םולש)"),
        ("سلام 12", "12 مالس"),
        ("abc שלום", "םולש abc"),
        ("12", "12"),
        ("", ""),
    ],
)
def test_known_lines(logical, visual):
    assert to_visual(logical, "rtl") == visual
    assert to_logical(visual, "rtl") == logical


def lines(letters: str) -> st.SearchStrategy[str]:
    """Return words of a script, mixed with numbers, Latin words and punctuation."""
    word = st.text(letters, min_size=1, max_size=6)
    number = st.from_regex(r"[0-9]{1,4}([.,:/][0-9]{1,3})?%?", fullmatch=True)
    latin = st.text("abcXYZ", min_size=1, max_size=4)
    bracket = word.map("({})".format)
    return st.lists(st.one_of(word, word, number, latin, bracket), min_size=1, max_size=4).map(" ".join)


@pytest.mark.parametrize("letters", [HEBREW, ARABIC], ids=["Hebrew", "Arabic"])
def test_visual_and_logical_order_round_trip(letters):
    @settings(max_examples=150, deadline=None)
    @given(lines(letters))
    def check(text):
        visual = to_visual(text, "rtl")
        assert sorted(visual.translate(MIRROR)) == sorted(text.translate(MIRROR))
        found = to_logical(visual, "rtl")
        assert to_visual(found, "rtl") == visual
        if not any(unicodedata.bidirectional(c) in ("L", "ET", "CS") for c in text):
            assert found == text

    check()


MIRROR = str.maketrans(")", "(")


@pytest.mark.parametrize("letters", [HEBREW, ARABIC], ids=["Hebrew", "Arabic"])
def test_an_alphabet_encodes_in_visual_order_and_decodes_in_logical_order(letters):
    alphabet = VisualAlphabet(with_mirrored(letters + " 0123456789("))
    word = letters[:4]
    assert alphabet.decode(alphabet.encode(f"{word} 42")) == f"{word} 42"
    classes = [alphabet.characters[token - 1] for token in alphabet.encode(f"{word} 42")]
    assert "".join(classes) == f"42 {word[::-1]}"
    assert alphabet.encode(f"({word})")[0] == alphabet.characters.index("(") + 1
    with pytest.raises(ValueError, match="character 'x' at position 4 of"):
        alphabet.encode(f"{word}x")
    assert alphabet != Alphabet(alphabet.characters) and Alphabet(alphabet.characters) != alphabet
    assert alphabet == VisualAlphabet(alphabet.characters) and hash(alphabet) == hash(
        VisualAlphabet(alphabet.characters)
    )
    assert alphabet != VisualAlphabet(alphabet.characters, direction="ltr")


def test_the_direction_follows_from_the_labels():
    assert direction_for(["abc", "1+2"], "auto") is None
    assert direction_for(["שלום", "abc"], "auto") == "rtl"
    assert direction_for(["ש", "abc def"], "auto") == "ltr"
    assert direction_for(["שלום"], "stored") is None and direction_for(["abc"], "rtl") == "rtl"
    assert type(make_alphabet("abc")) is Alphabet


@pytest.mark.parametrize("direction", [None, "rtl", "ltr"])
def test_the_checkpoint_keeps_the_direction(direction, tmp_path):
    alphabet = make_alphabet(HEBREW, direction=direction)
    model = CRNN(CRNNConfig(alphabet.num_classes, channels=4, hidden=8))
    save_checkpoint(Checkpoint(model, alphabet, PreprocessConfig()), tmp_path / "a.safetensors")
    assert load_checkpoint(tmp_path / "a.safetensors").alphabet == alphabet


def test_old_checkpoints_are_in_the_order_of_their_texts():
    assert type(load_checkpoint("formula").alphabet) is Alphabet


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "bidi.algorithm", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"needs the package python-bidi: pip install fastctc\[bidi\]"
    ):
        VisualAlphabet("אב")
