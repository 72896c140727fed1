"""The common parts of the example networks."""

import json

import pytest
import torch
from example_runs import EXAMPLES
from torch import nn
from torch.nn.functional import mse_loss

from fastctc.figures import new_figure

SCRIPTS = ["digit_strings", "moving_glyphs", "cats_and_dogs"]


@pytest.fixture
def experiment(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import experiment

    return experiment


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_script_has_the_common_options_and_shows_how(experiment, name, monkeypatch):
    if name == "cats_and_dogs":
        pytest.importorskip("sklearn")
    parser = __import__(name).parser
    help_text = parser.format_help()
    assert f"python examples/{name}.py --full --out runs/" in help_text
    options = parser.parse_args(["--full", "--out", "there", "--seed", "3"])
    assert options.full and options.out.name == "there" and options.seed == 3
    assert parser.parse_args([]).out.as_posix() == f"runs/{name}"


def test_training_lowers_the_loss_and_keeps_frozen_weights(experiment, capsys):
    torch.manual_seed(0)
    inputs = torch.randn(64, 3)
    model = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 1))
    model[0].requires_grad_(False)
    before = model[0].weight.clone()

    def batch_loss():
        assert model.training
        return mse_loss(model(inputs), inputs.sum(1, keepdim=True))

    seconds = experiment.train(model, batch_loss, 200, max_lr=0.05, name="sums")
    assert seconds > 0 and not model.training and torch.equal(model[0].weight, before)
    losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 10 and losses[-1] < 0.1 * losses[0]


def test_a_result_is_written_as_json_with_its_pictures(experiment, tmp_path, capsys):
    experiment.save(tmp_path / "out", {"share": 0.5, "lost": float("nan")}, one=new_figure(1, 1))
    paths = [tmp_path / "out" / name for name in ("result.json", "one.png")]
    assert capsys.readouterr().out.split() == list(map(str, paths))
    assert json.loads(paths[0].read_text()) == {"share": 0.5, "lost": None}
    assert paths[1].read_bytes().startswith(b"\x89PNG") and len(list(paths[0].parent.iterdir())) == 2


def test_tables_have_shares_in_percent(experiment, capsys):
    experiment.print_table([("", "exact"), ("long name", 0.123), ("b", 7)])
    assert capsys.readouterr().out == "           exact\nlong name  12.3%\nb              7\n"
