"""The table of a model's layers: shapes, parameters, operations, receptive field."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fastctc import cli
from fastctc.crnn.data import PreprocessConfig, frames_needed
from fastctc.crnn.model import CRNN, Checkpoint, CRNNConfig, save_checkpoint, summarize
from fastctc.crnn.model.network import ARCHITECTURES
from fastctc.text import Alphabet

SMALL = {
    "conv": CRNNConfig(7, channels=4, hidden=8),
    "stem": CRNNConfig(7, height=64, stem_stride=2, channels=4, hidden=8),
    "residual": CRNNConfig(7, height=64, stem_stride=2, channels=4, hidden=8, residuals=1),
    "bilstm": CRNNConfig(7, "bilstm", height=64, stem_stride=2, channels=4, hidden=8),
    "bigru": CRNNConfig(7, "bigru", channels=4, hidden=8),
    "vgg-bilstm": CRNNConfig(7, "vgg-bilstm", channels=4, hidden=8),
}


@pytest.mark.parametrize("name", SMALL)
def test_the_receptive_field_is_what_gradients_reach(name):
    torch.manual_seed(0)
    model = CRNN(SMALL[name]).double().eval()  # in float32, rounding reaches all of a tile
    for parameter in model.parameters():
        parameter.data.abs_()  # no ReLU is silent
    summary = summarize(model)
    frames: list[torch.Tensor] = []
    if summary.sees_all:  # the field of the convolutions in front of the recurrent layers
        model.project[0].register_forward_hook(lambda module, inputs, output: frames.append(output))
    reached = torch.zeros(400, dtype=torch.bool)
    t = 200 // summary.columns_per_frame
    for _ in range(5):
        image = torch.rand(1, 1, model.config.height, 400, dtype=torch.float64, requires_grad=True)
        frames.clear()
        logits, _ = model.logits(image)
        (frames[0] if summary.sees_all else logits)[0, t].sum().backward()
        reached |= image.grad[0, 0].ne(0).any(0)
    columns = reached.nonzero()[:, 0]
    first = summary.columns_per_frame * t + summary.first_column
    assert first > 0 and first + summary.receptive_field < 400
    assert (int(columns[0]), int(columns[-1])) == (first, first + summary.receptive_field - 1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_parameters_and_stored_bytes(architecture, tmp_path):
    model = CRNN(SMALL[architecture])
    summary = summarize(model)
    assert summary.parameters == sum(p.numel() for p in model.parameters())
    checkpoint = Checkpoint(model, Alphabet("abcdef"), PreprocessConfig(height=model.config.height))
    save_checkpoint(checkpoint, tmp_path / "a")
    content = (tmp_path / "a").read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    assert summary.stored_bytes == len(content) - header


@pytest.mark.parametrize("name", ["conv", "stem", "residual"])
def test_multiply_adds_are_half_of_torchs_flops(name):
    model = CRNN(SMALL[name]).double().eval()  # by PyTorch's operations
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 1, model.config.height, 100, dtype=torch.float64))
    assert 2 * summarize(model, 100).multiply_adds == counter.get_total_flops()


def test_multiply_adds_of_recurrent_layers():
    layers = {layer.name: layer for layer in summarize(CRNN(SMALL["bigru"]), 40).layers}
    # Gates x (input + hidden) x hidden, in two directions, in layers of 8 and 16 inputs, at 10 frames.
    assert layers["head"].multiply_adds == 10 * 2 * 3 * ((8 + 8) * 8 + (16 + 8) * 8)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("width", [1, 8, 9, 97, 192])
def test_shapes_frames_and_labels(name, width):
    model = CRNN(SMALL[name])
    summary = summarize(model, width)
    log_probs, (frames,) = model.eval()(torch.zeros(1, 1, model.config.height, width))
    assert summary.frames == int(frames) == log_probs.shape[1]
    assert summary.layers[-1].shape == log_probs.shape[1:]
    n = summary.longest_label
    assert frames_needed([i % 2 for i in range(n)]) <= frames < frames_needed([i % 2 for i in range(n + 1)])
    n = summary.longest_repetition
    assert frames_needed([1] * n) <= frames < frames_needed([1] * (n + 1))


def test_the_model_stays_as_it_is():
    model = CRNN(SMALL["bilstm"]).train()
    model.stages[0].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    summarize(model, 50)
    assert model.training and model.head.training and not model.stages[0].norm.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module._forward_hooks for module in model.modules())
    assert isinstance(model.head.rnn, nn.LSTM)


def test_the_table():
    text = str(summarize(CRNN(CRNNConfig(17, height=64, stem_stride=2))))
    assert text.startswith("conv: shapes for one image of 64 x 192\n\nlayer     what it does")
    assert "stages.0  conv 5x5 stride 2, norm, ReLU, pool 2x2" in text and "32 x 16 x 48         864" in text
    assert "555,761" in text and "1.12 MB stored" in text
    assert "24 frames, one for 8 columns\n" in text
    assert "a frame sees 179 columns of the image: frame t from 8 t - 86 to 8 t + 92\n" in text
    assert text.endswith("longest label that fits: 24 characters, 12 if all are equal")
    assert "the whole line" in str(summarize(CRNN(SMALL["bigru"])))
    with pytest.raises(ValueError, match="width is 0, expected at least 1"):
        summarize(CRNN(SMALL["conv"]), 0)


def test_command(capsys):
    assert cli.main(["summary", "formula", "--width", "96"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("conv: shapes for one image of 64 x 96\n")
    assert "alphabet '0123456789+-*()=', blank is class 0" in out
    assert "\npreprocess\n  height                   64\n" in out and "\n  steps                    " in out
    assert cli.main(["summary", "none.safetensors"]) == 2
    assert "no checkpoint at none.safetensors" in capsys.readouterr().err
