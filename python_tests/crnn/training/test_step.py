"""A training step: the divergence of label smoothing."""

import math

import torch
from recipes import recipe

from fastctc.crnn.data import Batch
from fastctc.crnn.model import CRNN, CRNNConfig
from fastctc.crnn.training.step import Learner, Rate, uniform_divergence
from fastctc.text import Alphabet


def test_the_divergence_is_the_mean_of_the_frames_inside():
    torch.manual_seed(0)
    logits, lengths = torch.randn(3, 5, 4, dtype=torch.float64), torch.tensor([5, 1, 3])
    inside = torch.cat([logits[n, :length] for n, length in enumerate(lengths.tolist())]).softmax(-1)
    uniform = torch.full_like(inside, 1 / 4)
    expected = torch.nn.functional.kl_div(inside.log(), uniform, reduction="none").sum(-1).mean()
    torch.testing.assert_close(uniform_divergence(logits, lengths), expected)
    assert abs(uniform_divergence(torch.full((1, 2, 4), 3.0), torch.tensor([2]))) < 1e-6
    sure = torch.tensor([[[20.0, 0.0]]])
    torch.testing.assert_close(uniform_divergence(sure, torch.tensor([1])), torch.tensor(10 - math.log(2)))


def test_smoothing_lowers_the_certainty_and_not_the_reported_loss():
    images = torch.randint(0, 256, (2, 1, 32, 40), dtype=torch.uint8)
    batch = Batch(images, torch.tensor([40, 31]), torch.tensor([1, 2, 1]), torch.tensor([2, 1]))
    losses, certainty = [], []
    for smoothing in (0.0, 0.5):
        torch.manual_seed(0)
        model = CRNN(CRNNConfig(3, channels=4, hidden=8, dropout=0.0))
        learner = Learner(model, recipe(label_smoothing=smoothing, precision="fp32"), Alphabet("ab"))
        losses.append([learner.step([batch], step, Rate(3e-3, 0.9)).loss for step in range(30)])
        with torch.no_grad():
            certainty.append(model(images.float() / 255)[0].exp().amax(-1).mean())
    assert losses[0][0] == losses[1][0]
    assert certainty[1] < certainty[0] and losses[1][-1] < losses[1][0]
