"""A model of Hebrew or Arabic words, mixed with numbers, is trained and read in logical order."""

import random

import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from fastctc.crnn import Recognizer, evaluate, train
from fastctc.crnn.data import VisualAlphabet, open_source
from fastctc.crnn.data.visual_order import to_visual
from fastctc.crnn.training import ModelConfig, ScheduleConfig, TrainConfig

WORDS = {
    "Hebrew": "שלום בית ספר ילד מים לחם אור יום לילה עיר",
    "Arabic": "دار باب نور قمر شمس بحر كتاب قلم ورد ماء",
}


def draw(text: str) -> Image.Image:
    """Draw characters beside each other in visual order, letters unjoined."""
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 24)
    visual = to_visual(text, "rtl")
    widths = [int(font.getlength(character)) + 2 for character in visual]
    image = Image.new("L", (sum(widths) + 8, 40), 255)
    x = 4
    for character, width in zip(visual, widths, strict=True):
        ImageDraw.Draw(image).text((x, 4), character, fill=0, font=font, direction=None)
        x += width
    return image


@pytest.mark.slow
@pytest.mark.parametrize("script", WORDS)
def test_words_are_learned_and_read_in_logical_order(script, tmp_path):
    rng, words = random.Random(0), WORDS[script].split()
    lines = []
    for number in range(400):
        parts = [rng.choice(words), str(rng.randint(0, 99))]
        rng.shuffle(parts)
        text = " ".join(parts) if number % 4 else rng.choice(words)
        draw(text).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png\t{text}\n")
    (tmp_path / "labels.tsv").write_text("".join(lines), encoding="utf-8")
    config = TrainConfig(
        data=str(tmp_path),
        model=ModelConfig(channels=16, hidden=64),
        schedule=ScheduleConfig(steps=300, batch_size=16, eval_images=20, eval_every=300),
        threads=1,
        precision="fp32",
    )
    result = train(config, tmp_path / "run", show_progress=False)
    recognizer = Recognizer.load(result.checkpoint)
    assert isinstance(recognizer.alphabet, VisualAlphabet) and recognizer.alphabet.direction == "rtl"
    found = evaluate(recognizer, open_source(tmp_path))
    assert found.exact_match > 0.9
    text = f"{words[0]} 42"
    reading = recognizer.read(np.asarray(draw(text)))
    assert reading.text == text
    assert [span.text for span in reading.spans] == list(to_visual(text, "rtl"))
    assert recognizer.read(np.asarray(draw(text)), beam_size=8, nbest=3).nbest[0].text == text
