"""The network restores images better than filters, and the damage is as documented."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from example_runs import EXAMPLES, result_of


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(EXAMPLES)
    import denoising

    return denoising


def test_restores_better_than_filters(tmp_path: Path) -> None:
    outcomes = result_of("denoising.py", tmp_path, "--steps", "50")["outcomes"]
    direct = outcomes["LSTM decoder, direct attention"]
    filters = [outcome for name, outcome in outcomes.items() if "filter" in name]
    assert len(filters) == 2 and outcomes["clean"]["read"] > 0.9
    for other in (*filters, outcomes["damaged"], outcomes["LSTM decoder, vector only"]):
        assert direct["psnr"] > other["psnr"] + 2
    assert (tmp_path / "sheet.png").stat().st_size > 50_000


def test_damage(example: Any) -> None:
    clean, damaged, texts = example.draw(6, 3)
    assert clean.shape == damaged.shape == (6, example.HEIGHT, example.WIDTH) and len(texts) == 6
    assert damaged.min() >= 0 and damaged.max() <= 1
    windows = torch.nn.functional.max_pool2d(damaged[:, None], example.BLOCK, stride=1)
    assert all((image == 0).any() for image in windows)  # a missing square
    assert 0.05 < (damaged - clean).abs().median() < 0.2
    again = example.draw(6, 3)
    assert torch.equal(again[0], clean) and torch.equal(again[1], damaged) and again[2] == texts
    assert example.draw(1, 4)[2] != texts[:1]


def test_psnr(example: Any) -> None:
    clean = torch.rand(3, 4, 5)
    assert example.psnr(clean + 0.1, clean) == pytest.approx(20)
    assert example.psnr(clean + 0.01, clean) == pytest.approx(40, abs=1e-3)


@pytest.mark.parametrize("direct", [True, False])
def test_direct_attention_reads_the_damaged_image(example: Any, direct: bool) -> None:
    """The decoder's input of a step depends on the columns of this step only with direct attention."""
    torch.manual_seed(0)
    model = example.Restorer(8, direct=direct).eval()
    assert model.lstm.input_size == 8 + direct * example.HEIGHT * example.GROUP
    images = torch.rand(2, example.HEIGHT, example.WIDTH)
    assert model(images).shape == images.shape
    model.encode, model.vector = torch.nn.Flatten(), torch.nn.Identity()
    model.encode.forward = lambda ink: torch.zeros(len(ink), 8)  # type: ignore[method-assign]
    assert torch.equal(*model(images)) is not direct
