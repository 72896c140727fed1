"""The picture of a network has every operation, its shape and its inputs."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fastctc import cli
from fastctc.crnn import CRNN, CRNNConfig
from fastctc.crnn.report import plot_network
from fastctc.crnn.report.network_figure import record


def names(operations):
    return [each.name for each in operations]


@pytest.mark.parametrize("architecture", ["conv", "bilstm", "bigru", "vgg-bilstm"])
def test_every_architecture_is_recorded(architecture):
    model = CRNN(CRNNConfig(5, architecture, channels=4, hidden=8))
    width = 40
    found = record(model, torch.zeros(1, 1, 32, width))
    assert found[0].name == "input" and found[0].shape == (1, 32, width)
    assert found[-1].name == "log_softmax" and found[-1].shape == (model.config.frames(width), 5)
    convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    assert sum(name.startswith("conv2d") for name in names(found)) == convolutions
    assert {"bilstm": "lstm", "vgg-bilstm": "lstm", "bigru": "gru"}.get(architecture, "+") in names(found)
    assert all(i < number for number, each in enumerate(found) for i in each.inputs)
    assert {i for each in found for i in each.inputs} == set(range(len(found) - 1))
    assert [each.module for each in found if each.module.startswith("stages")] and model.training


def test_a_residual_connection_has_two_inputs():
    found = record(CRNN(CRNNConfig(5, channels=4, hidden=8)), torch.zeros(1, 1, 32, 40))
    sums = [each for each in found if each.name == "+"]
    assert len(sums) == 3 and all(len(each.inputs) == 2 for each in sums)
    for each in sums:  # the input of the block, and its last operation
        assert found[each.inputs[1]].name == "relu" and each.inputs[1] - each.inputs[0] == 3


def test_operations_of_other_networks():
    """In-place operations, packed sequences, masks, functions and several inputs."""

    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(3, 4, batch_first=True)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x, lengths, y):
            mask = torch.arange(x.shape[1])[None, :, None] < 4
            z = self.relu(torch.cat([x * mask, y], 1) - 0.5)
            packed = pack_padded_sequence(z, lengths, batch_first=True)
            return pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0].mean(1).exp()

    found = record(Other(), torch.ones(2, 5, 3), torch.tensor([8, 8]), torch.ones(2, 3, 3))
    assert names(found) == ["input", "input", "concatenate", "relu", "lstm", "mean", "exp"]
    assert [each.inputs for each in found] == [(), (), (0, 1), (2,), (3,), (4,), (5,)]
    assert [each.module for each in found] == ["", "", "", "relu", "rnn", "", ""]
    assert found[3].shape == (8, 3) and found[-1].shape == (4,)


def test_the_model_stays_as_it_was():
    model = CRNN(CRNNConfig(5, channels=4, hidden=8))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plot_network(model, torch.rand(1, 1, 32, 40))
    assert model.training and not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_command_draws_the_network(tmp_path, capsys):
    texts = {}
    for name in ("net.svg", "again.svg", "net.pdf", "net"):
        assert cli.main(["summary", "formula", "--picture", str(tmp_path / name)]) == 0
        path = tmp_path / (name if "." in name else f"{name}.png")
        assert f"picture {path}" in capsys.readouterr().out
        texts[name] = path.read_bytes()
    assert texts["net.svg"] == texts["again.svg"] and b"<svg" in texts["net.svg"]
    assert texts["net.pdf"].startswith(b"%PDF") and texts["net"].startswith(b"\x89PNG")


def test_the_command_refuses_another_kind_of_picture(tmp_path, capsys):
    for command in (["summary", "formula", "--picture"], ["read", "a.png", "--explain"]):
        with pytest.raises(SystemExit) as stop:
            cli.main([*command, str(tmp_path / "net.gif")])
        assert stop.value.code == 2 and "net.gif does not end in .png, .pdf, .svg" in capsys.readouterr().err


def test_without_matplotlib_the_command_names_the_remedy(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    assert cli.main(["summary", "formula", "--picture", "net.svg"]) == 2
    assert 'pip install "fastctc[plot]"' in capsys.readouterr().err
