"""The picture of a training run shows its log."""

import pytest
from PIL import Image

from fastctc.crnn.training import plot_curve
from fastctc.crnn.training.curve import save_curve

pytest.importorskip("matplotlib")
LINES = [
    {"step": step, "loss": 50 / step, "blank_rate": 0.9, "learning_rate": 1e-3}
    | ({"exact_match": step / 100} if step % 50 == 0 else {})
    for step in range(10, 101, 10)
]


def test_the_curve_shows_the_log():
    loss, share, rate = plot_curve(LINES, "a run").axes
    assert loss.get_yscale() == "log"
    assert loss.lines[0].get_xydata().tolist() == [[line["step"], line["loss"]] for line in LINES]
    drawn = {drawn.get_label(): drawn.get_xydata().tolist() for drawn in share.lines}
    assert drawn["exact match"] == [[50, 50], [100, 100]] and drawn["blank rate"][0] == [10, 90]
    assert rate.lines[0].get_ydata().tolist() == [1.0] * 10


@pytest.mark.slow
@pytest.mark.parametrize(
    "lines", [[], LINES[:1], [LINES[0] | {"loss": 0.0}], [LINES[0] | {"loss": float("nan")}]]
)
def test_any_log_can_be_drawn(tmp_path, lines):
    save_curve(lines, tmp_path / "curve.png")
    assert Image.open(tmp_path / "curve.png").size == (1050, 840)
