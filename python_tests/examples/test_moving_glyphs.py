"""An LSTM over a CNN finds the direction of a movement, which no single image shows."""

import pytest
import torch
from example_runs import EXAMPLES, result_of


@pytest.fixture
def glyphs(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import moving_glyphs

    return moving_glyphs


def test_the_order_of_the_images_decides(tmp_path):
    result = result_of("moving_glyphs.py", tmp_path, "--steps", "250")
    shares, chance = result["accuracy"], result["chance"]
    assert shares["LSTM over the images"] > 0.9
    assert shares["LSTM, images reversed: opposite direction"] > 0.8
    assert abs(shares["one image"] - chance) < 0.1
    assert shares["all images, without their order"] < 0.6  # left and right have the same set of images
    assert result["batch_difference"] < 1e-4
    for picture in ("sequences.png", "network.png"):
        assert (tmp_path / picture).stat().st_size > 10_000


def test_an_image_is_equally_likely_in_each_class(glyphs):
    """The sum over all images of a class has no place that is brighter than the others."""
    data = glyphs.Sequences(1500, seed=3)
    for kind in range(len(glyphs.CLASSES)):
        chosen = [images for images, each in zip(data.images, data.classes) if each == kind]
        for number in (0, -1):
            mean = torch.stack([images[number].float() for images in chosen]).mean(0)
            for profile in (mean.mean(0), mean.mean(1)):
                assert float(profile.std() / profile.mean()) < 0.15


@pytest.mark.parametrize("over", ["lstm", "mean", "one"])
def test_padding_and_batch_do_not_change_a_prediction(glyphs, over):
    torch.manual_seed(0)
    data, model = glyphs.Sequences(12, seed=1), glyphs.FrameClassifier(over).eval()
    together = glyphs.predict(model, data, 12)
    for batch in (1, 5):
        torch.testing.assert_close(glyphs.predict(model, data, batch), together, rtol=0, atol=1e-5)
