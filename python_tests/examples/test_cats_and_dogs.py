"""A pretrained network helps, finds planted outliers, and the clip bounds the loss of an image."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from example_runs import EXAMPLES, result_of
from PIL import Image

pytest.importorskip("sklearn", reason='needs scikit-learn: pip install "fastctc[examples]"')


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import cats_and_dogs

    return cats_and_dogs


def test_pretrained_networks_are_better_and_outliers_are_found(tmp_path):
    result = result_of("cats_and_dogs.py", tmp_path)
    methods = result["methods"]
    for pretrained in ("extracted features, softmax", "fine-tuned network"):
        for other in ("kNN on pixels", "SVM on pixels", "network from scratch"):
            assert methods[pretrained]["accuracy"] > methods[other]["accuracy"] + 0.05
    one = result["outliers"]["top 1"]
    assert one["found"] >= 0.7 * result["planted"]
    assert one["wrong"] < 0.2 * result["size"]["training"]
    for picture in ("losses.png", "images.png"):
        assert (tmp_path / picture).stat().st_size > 10_000


def test_the_clip_bounds_the_loss(example):
    is_dog, dog = torch.tensor([True, False, True, True]), np.array([1.0, 1.0, 0.9, 0.6])
    found = example.losses(is_dog, dog)
    rest = -math.log(0.9) - math.log(0.6)
    assert found["accuracy"] == 0.75
    assert found["log_loss"] == pytest.approx((-math.log(1e-15) + rest) / 4, rel=1e-2)
    assert found["clipped_log_loss"] == pytest.approx((-math.log(0.995) - math.log(0.005) + rest) / 4)


def test_scenes_have_their_labels_and_share_no_digit(example):
    import scenes

    ranges = sorted(scenes.PARTS.values())
    assert all(end <= first for (_, end), (first, _) in pairwise(ranges))
    found = scenes.Scenes("test", 400, 0.25, seed=0)
    assert 60 < int(found.is_outlier.sum()) < 140
    usual = ~found.is_outlier
    assert torch.equal(found.is_dog[usual], torch.isin(found.breeds[usual], torch.tensor(scenes.DOGS)))
    assert torch.equal(found.images, scenes.Scenes("test", 400, 0.25, seed=0).images)


def test_photographs_are_found_by_their_names(example, tmp_path):
    import photographs

    with pytest.raises(ValueError, match=r"has no photograph, expected files such as cat\.0\.jpg"):
        photographs.find_photographs(tmp_path, 10, seed=0)
    for name in ("cat.0.jpg", "cat.1.png", "Dog.0.JPEG", "dog.txt", "bird.jpg"):
        Image.new("L", (40, 30), 200).save(tmp_path / name, format="PNG")
    paths = photographs.find_photographs(tmp_path, 10, seed=0)
    assert {path.name for path in paths} == {"cat.0.jpg", "cat.1.png", "Dog.0.JPEG"}
    data = photographs.Photographs(paths)
    assert data.is_dog.tolist() == [path.name.startswith("Dog") for path in paths]
    assert data.inputs(torch.arange(3)).shape == (3, 3, 224, 224) and not data.is_outlier.any()
    with pytest.raises(ValueError, match="1 photographs have 0 dogs, expected cats and dogs"):
        photographs.Photographs([tmp_path / "cat.0.jpg"])


def test_photographs_by_a_network_of_timm(example, monkeypatch, tmp_path):
    timm = pytest.importorskip("timm")
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: create(name, pretrained=False))
    for number in range(4):
        for name in ("cat", "dog"):
            Image.effect_noise((60, 60), 90).save(tmp_path / f"{name}.{number}.jpg")
    task = example.photographed(tmp_path, "resnet18", example.Size(training=6, test=2), seed=0)
    assert example.find_outliers(task, 10).shape == (6,)
    fresh = task.fresh()
    fresh.features.load_state_dict(task.pretrained.features.state_dict())
    assert example.apply(fresh, task.test).shape == (2, 2)
