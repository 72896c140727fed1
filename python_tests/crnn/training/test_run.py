"""Training: learns, resumes to the same weights, and names what it cannot use."""

import json
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from recipes import changed, recipe, tiny

from fastctc.crnn.data import BatchMaker, LabelError, PreprocessConfig, collect, write_folder
from fastctc.crnn.formulas import CHARACTERS, PRESETS, FormulaSource
from fastctc.crnn.model import CRNN, CRNNConfig, load_checkpoint, load_state, save_state
from fastctc.crnn.read import evaluate_samples
from fastctc.crnn.training import TrainConfig, TrainError, train
from fastctc.crnn.training import data as training_data
from fastctc.crnn.training.step import Learner, Rate, moving_average, one_cycle
from fastctc.text import Alphabet

ALPHABET = Alphabet(CHARACTERS)
RATE = Rate(3e-3, 0.9)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Use one thread, because tiny networks gain nothing from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("formulas")
    write_folder(FormulaSource(renderer="captcha", seed=3), path, 40)
    return path


def weights(out) -> dict[str, torch.Tensor]:
    return load_state(out / "state.pt")["model"]


def assert_same_weights(a, b):
    for name, tensor in weights(a).items():
        assert torch.equal(weights(b)[name], tensor), name


def test_one_cycle_is_torchs():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=1, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=101, pct_start=0.16)
    for step in range(101):
        lr, momentum = one_cycle(step, 101, 3e-3, 15.16 / 101)
        group = optimizer.param_groups[0]
        assert lr == pytest.approx(group["lr"], abs=1e-9), step
        assert momentum == pytest.approx(group["betas"][0], abs=1e-6)
        if step < 100:
            optimizer.step()
            schedule.step()


def a_recipe(**settings):
    return recipe(**{"data": "none", "max_lr": 3e-3, "weight_decay": 0.0, "precision": "fp32"} | settings)


def test_a_step_is_the_mean_over_its_parts():
    samples, _ = collect(FormulaSource(renderer="captcha", seed=3), range(8), PreprocessConfig())
    batches = BatchMaker(samples, ALPHABET, 8)
    parts = [batches.batch(0, (part, 2)) for part in range(2)]
    config = a_recipe(optimizer="adamw", clip=1e9)
    gradients, statistics, losses = [], [], []
    for given in ([parts[0]], [parts[1]], parts):
        torch.manual_seed(0)
        model = CRNN(CRNNConfig(ALPHABET.num_classes, channels=4, hidden=8, dropout=0.0)).train()
        losses.append(Learner(model, config, ALPHABET).step(given, 0, RATE).loss)
        gradients.append([p.grad for p in model.parameters()])
        statistics.append([b.double() for b in model.buffers() if b.is_floating_point()])
    assert losses[2] == pytest.approx((losses[0] + losses[1]) / 2)
    for first, second, both in [*zip(*gradients, strict=True), *zip(*statistics, strict=True)]:
        torch.testing.assert_close((first + second) / 2, both, rtol=1e-5, atol=1e-6)


def test_one_batch_is_memorized():
    samples, _ = collect(FormulaSource(renderer="captcha", seed=3), range(8), PreprocessConfig())
    torch.manual_seed(0)
    model = CRNN(CRNNConfig(ALPHABET.num_classes, channels=16, hidden=32, dropout=0.0)).train()
    learner = Learner(model, a_recipe(), ALPHABET)
    batches = BatchMaker(samples, ALPHABET, 8)
    for step in range(80):
        report = learner.step([batches.batch(step)], step, one_cycle(step, 80, 5e-3, 0.15))
    assert report.loss < 0.05 and report.blank_rate < 0.9
    assert evaluate_samples(model, samples, ALPHABET, PreprocessConfig()).exact_match == 1


@pytest.mark.slow
def test_the_papers_network_learns():
    samples, _ = collect(FormulaSource(renderer="captcha", seed=3), range(2), PreprocessConfig())
    torch.manual_seed(0)
    model = CRNN(CRNNConfig(ALPHABET.num_classes, "vgg-bilstm", channels=8, hidden=32, dropout=0.0)).train()
    learner = Learner(model, a_recipe(), ALPHABET)
    batch = BatchMaker(samples, ALPHABET, 2).batch(0)
    losses = [learner.step([batch], step, one_cycle(step, 60, 3e-3, 0.15)).loss for step in range(60)]
    assert losses[-1] < 0.5 * losses[1]


@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_that_is_not_finite_changes_nothing(parts):
    samples, _ = collect(FormulaSource(renderer="captcha"), range(4), PreprocessConfig())
    model = CRNN(CRNNConfig(ALPHABET.num_classes, channels=4, hidden=8)).train()
    learner = Learner(model, a_recipe(), ALPHABET)
    batches = BatchMaker(samples, ALPHABET, 4)
    with torch.no_grad():
        model.classify.bias[0] = float("nan")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = learner.step([batches.batch(0, (part, parts)) for part in range(parts)], 0, RATE)
    assert report.skipped
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)


def test_the_moving_average_is_one():
    model = CRNN(CRNNConfig(ALPHABET.num_classes, channels=4, hidden=8))
    average = moving_average(model, 0.5)
    bias, mean, expected = model.classify.bias, model.stages[0].norm.running_mean, []
    for step in range(30):
        with torch.no_grad():
            bias.fill_(step), mean.fill_(2 * step)
        average.update_parameters(model)
        keep = min(0.5, (1 + step) / (10 + step))
        expected.append(step if not expected else keep * expected[-1] + (1 - keep) * step)
        assert average.module.classify.bias[0].item() == pytest.approx(expected[-1], rel=1e-5)
        averaged = average.module.stages[0].norm.running_mean[0].item()
        assert averaged == pytest.approx(2 * expected[-1], rel=1e-5)
    assert expected[-1] == pytest.approx(28, abs=0.01)


@pytest.mark.slow
def test_the_averaged_weights_are_kept(folder, tmp_path):
    result = train(tiny(folder, ema=0.9), tmp_path, show_progress=False)
    state = load_state(tmp_path / "state.pt")
    kept = load_checkpoint(result.checkpoint).model.classify.bias
    assert torch.equal(kept, state["average"]["module.classify.bias"])
    assert not torch.equal(kept, state["model"]["classify.bias"])


@pytest.mark.slow
def test_a_second_run_takes_its_images_from_the_cache(folder, tmp_path, monkeypatch):
    for name in "ab":
        train(tiny(folder, steps=2), tmp_path / name, cache=tmp_path / "cache", show_progress=False)
        monkeypatch.setattr(training_data, "collect", None)  # the second neither draws nor reads
    assert_same_weights(tmp_path / "a", tmp_path / "b")


def test_without_matplotlib_there_is_no_picture(folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with caplog.at_level(logging.INFO):
        train(tiny(folder, steps=1), tmp_path, show_progress=False)
    assert "no curve.png: pictures need matplotlib: pip install" in caplog.text
    assert not (tmp_path / "curve.png").exists()


def test_a_resumed_runs_log_has_each_step_once(folder, tmp_path):
    config = tiny(folder, log_every=1, save_every=4)
    with pytest.raises(TrainError):  # dies two steps after a save
        train(config, tmp_path, show_progress=False, should_stop=fail_at(6))
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 6
    train(config, tmp_path, resume=True, show_progress=False)
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == list(range(1, 13))


def fail_at(step: int):
    def should_stop(now: int) -> bool:
        if now == step:
            raise TrainError("as if killed")
        return False

    return should_stop


@pytest.mark.slow
def test_the_seed_decides_everything(folder, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(tiny(folder, seed=seed), tmp_path / name, show_progress=False)
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    with pytest.raises(AssertionError, match="weight"):
        assert_same_weights(tmp_path / "a", tmp_path / "c")


@pytest.mark.slow
def test_the_checkpoint_keeps_preprocessing_and_augmentation(folder, tmp_path):
    settings = {"median": 3, "equalize": True, "rotate": 3.0, "noise": 5.0}
    for name, changes in (("plain", {}), ("changed", settings)):
        train(tiny(folder, steps=2, **changes), tmp_path / name, show_progress=False)
    checkpoint = load_checkpoint(tmp_path / "changed" / "model.safetensors")
    assert checkpoint.preprocess == PreprocessConfig(height=32, median=3, equalize=True)
    kept = checkpoint.training["recipe"]
    assert settings.items() <= (kept["preprocess"] | kept["augment"]).items()
    assert (
        load_state(tmp_path / "plain" / "state.pt")["data"]
        != load_state(tmp_path / "changed" / "state.pt")["data"]
    )
    with pytest.raises(ValueError, match="rotate is 20, expected 0 to 15 degrees"):
        recipe(rotate=20)
    with pytest.raises(ValueError, match="median is 2, expected 0 or an odd number"):
        recipe(median=2)


def test_what_a_run_leaves(folder, tmp_path):
    result = train(tiny(folder), tmp_path, show_progress=False)
    assert result.checkpoint == tmp_path / "model.safetensors" and result.evaluation.count == 2
    checkpoint = load_checkpoint(result.checkpoint)
    record = checkpoint.training
    assert record["steps"] == 12 and record["recipe"]["seed"] == 0 and record["training_images"] == 38
    assert record["exact_match"] == result.evaluation.exact_match and record["torch"] == torch.__version__
    fitted = result.evaluation.calibrated(hottest=2)
    assert checkpoint.temperature == fitted.temperature != 1
    assert record["calibration_error"] == pytest.approx(fitted.calibration_error, abs=1e-6)
    texts = [line.partition("\t")[2] for line in (folder / "labels.tsv").read_text().splitlines()]
    assert set(checkpoint.alphabet.characters) == set("".join(texts))
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == [5, 10, 12]
    assert all(
        entry["loss"] > 0 and entry["compute_seconds"] > 0 and entry["data_seconds"] > 0 for entry in entries
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best.safetensors",
        "curve.png",
        "log.jsonl",
        "model.safetensors",
        "state.pt",
    ]


@pytest.mark.parametrize(
    "stop_at, ema", [(7, 0.9), *(pytest.param(step, 0.0, marks=pytest.mark.slow) for step in (1, 11))]
)
def test_stopped_and_resumed_equals_uninterrupted(folder, tmp_path, stop_at, ema):
    config = tiny(folder, ema=ema)
    train(config, tmp_path / "whole", show_progress=False)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "parts", show_progress=False, should_stop=lambda step: step == stop_at)
    assert load_state(tmp_path / "parts" / "state.pt")["step"] == stop_at
    train(config, tmp_path / "parts", resume=True, show_progress=False)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")


def train_until_killed(config: TrainConfig, out: Path, step: int) -> None:
    """Train in this process and kill it after a step."""

    def should_stop(now: int) -> bool:
        if now == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    torch.set_num_threads(1)
    train(config, out, show_progress=False, should_stop=should_stop)


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(folder, tmp_path):
    config = tiny(folder, save_every=2, optimizer="muon")
    process = multiprocessing.get_context("spawn").Process(
        target=train_until_killed, args=(config, tmp_path / "parts", 7)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert load_state(tmp_path / "parts" / "state.pt")["step"] == 6
    for name in ("parts", "whole"):
        train(config, tmp_path / name, resume=name == "parts", show_progress=False)
    assert_same_weights(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.slow
def test_a_budget_of_minutes_is_kept(folder, tmp_path):
    config = tiny(folder, steps=None, minutes=0.1, log_every=1)
    began = time.monotonic()
    result = train(config, tmp_path, show_progress=False)
    assert time.monotonic() - began < 60  # 6 seconds and the picture, on a machine however busy
    state = load_state(tmp_path / "state.pt")
    assert result.steps == state["step"] >= 1 and state["pace"]["position"] >= state["pace"]["steps"] - 1
    rates = [json.loads(line)["learning_rate"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rates[-1] < 0.1 * max(rates)  # the plan came to its end


def test_a_budget_that_is_used_up_ends_a_resumed_run(folder, tmp_path):
    config = tiny(folder, steps=None, minutes=1.0, save_every=1)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path, show_progress=False, should_stop=lambda step: step == 3)
    state = load_state(tmp_path / "state.pt")
    save_state(state | {"seconds": 61.0}, tmp_path / "state.pt")
    assert train(config, tmp_path, show_progress=False, resume=True).steps <= 5


@pytest.mark.slow
def test_read_images_are_cached(folder, tmp_path, caplog):
    data = shutil.copytree(folder, tmp_path / "data")
    (data / "000003.png").write_bytes(b"text")
    (data / "labels.tsv").write_text((folder / "labels.tsv").read_text() + "none.png\t1\n")
    kept = {"cache": tmp_path / "cache", "show_progress": False}
    train(tiny(data, steps=2), tmp_path / "none", show_progress=False)
    first = train(tiny(data, steps=2), tmp_path / "first", **kept)
    assert_same_weights(tmp_path / "first", tmp_path / "none")
    for image in data.glob("*.png"):  # nobody can read these, but they look unchanged
        status = image.stat()
        image.write_bytes(b"x" * status.st_size)
        os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    caplog.clear()
    second = train(tiny(data, steps=2), tmp_path / "second", **kept)
    assert_same_weights(tmp_path / "first", tmp_path / "second")
    assert second.problems == first.problems and len(second.problems) == 2
    assert "left out: 000003.png: not a readable image" in caplog.text
    assert (
        train(tiny(data, steps=2), tmp_path / "second", resume=True, **kept).evaluation == second.evaluation
    )
    with pytest.raises(
        LabelError, match=r"none of 41 samples can be read; the first: 000000.png: not a reada"
    ):
        train(tiny(data, height=40, steps=2), tmp_path / "higher", **kept)
    (data / "000005.png").touch()
    with pytest.raises(LabelError, match="none of 41 samples can be read"):
        train(tiny(data, steps=2), tmp_path / "touched", **kept)


@pytest.mark.slow
def test_drawn_images_are_cached(tmp_path, monkeypatch):
    settings = {"data": None, "renderer": "captcha", "images": 24, "eval_images": 4, "rounds": 2, "steps": 4}
    config = tiny(None, **settings)
    kept = {"cache": tmp_path / "cache", "show_progress": False, "workers": 0}
    train(config, tmp_path / "none", show_progress=False, workers=0)
    train(config, tmp_path / "first", **kept)
    assert_same_weights(tmp_path / "first", tmp_path / "none")
    assert len(list((tmp_path / "cache").iterdir())) == 3  # two rounds and the unseen ones

    def refuse(self, index):
        raise ModuleNotFoundError("drawn again")

    monkeypatch.setattr(FormulaSource, "__call__", refuse)
    train(changed(config, "optimizer", max_lr=1e-3), tmp_path / "other", **kept)
    train(config, tmp_path / "second", **kept)
    assert_same_weights(tmp_path / "first", tmp_path / "second")
    for change in ({"seed": 1}, {"images": 23}, {"look": "default"}, {"height": 40}, {"value": "none"}):
        with pytest.raises(ModuleNotFoundError, match="drawn again"):
            train(tiny(None, **(settings | change)), tmp_path / "changed", **kept)


def test_drawn_formulas(tmp_path):
    config = tiny(None, data=None, renderer="captcha", images=20, eval_images=6, steps=2)
    result = train(config, tmp_path, workers=0, show_progress=False)
    assert result.evaluation.count == 6 and result.config.draw.images == 20
    assert load_checkpoint(result.checkpoint).alphabet == ALPHABET


@pytest.mark.slow
@pytest.mark.parametrize(
    "characters", [CHARACTERS, CHARACTERS.replace("7", "")], ids=["all", "some left out"]
)
@pytest.mark.parametrize("stop_at", [3, 4, 5])
def test_new_images_every_round_and_resumed_between(tmp_path, stop_at, characters):
    drawn = {"renderer": "captcha", "images": 12, "rounds": 3, "eval_images": 4}
    config = tiny(None, data=None, steps=12, characters=characters, min_usable=0.1, **drawn)

    def stop(step: int) -> bool:
        return step == stop_at

    train(config, tmp_path / "whole", workers=0, show_progress=False)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "parts", workers=0, show_progress=False, should_stop=stop)
    train(config, tmp_path / "parts", workers=0, show_progress=False, resume=True)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    count = load_checkpoint(tmp_path / "whole" / "model.safetensors").training["training_images"]
    assert count == 36 if characters == CHARACTERS else count < 36


def test_samples_that_cannot_be_learned_are_left_out_and_named(tmp_path, caplog):
    write_folder(FormulaSource(renderer="captcha"), tmp_path / "data", 12)
    labels = tmp_path / "data" / "labels.tsv"
    labels.write_text(labels.read_text() + "none.png\t1+1+1\n" + "000001.png\t" + "1" * 30 + "\n")
    with caplog.at_level(logging.WARNING):
        result = train(tiny(tmp_path / "data", steps=1), tmp_path / "out", show_progress=False)
    assert [problem.name for problem in result.problems] == ["none.png", "000001.png"]
    assert "none.png: no such file" in caplog.text
    assert "needs 59 frames, an image 96 wide has 24" in caplog.text
    with pytest.raises(LabelError, match="none of 13 samples can be used"):
        train(tiny(tmp_path / "data", characters="x"), tmp_path / "other", show_progress=False)


def test_errors(folder, tmp_path):
    train(tiny(folder, steps=2), tmp_path, show_progress=False)
    with pytest.raises(TrainError, match="holds a training run already"):
        train(tiny(folder), tmp_path, show_progress=False)
    state = load_state(tmp_path / "state.pt")
    save_state(state | {"data": 1}, tmp_path / "state.pt")
    with pytest.raises(TrainError, match="the training data is not what the run began with"):
        train(tiny(folder), tmp_path, resume=True, show_progress=False)
    save_state(state | {"config": {"color": 1}}, tmp_path / "state.pt")
    with pytest.raises(TrainError, match="settings that this version of fastctc lacks: color"):
        train(tiny(folder), tmp_path, resume=True, show_progress=False)
    with pytest.raises(TrainError, match="not finite in 20 steps in a row"):
        train(tiny(folder, max_lr=1e30, steps=40), tmp_path / "nan", show_progress=False)


def test_settings_are_checked():
    for settings, message in [
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
        ({"minutes": -1.0}, "minutes is -1.0, expected more than 0"),
        ({"precision": "fp8"}, "precision is 'fp8'"),
        ({"parts": 3}, "parts is 3, expected a divisor of batch_size, which is 64"),
        ({"optimizer": "sgd"}, "name is 'sgd', expected 'adamw' or 'muon'"),
        ({"ema": 1.0}, "ema is 1.0, expected from 0 to less than 1"),
        ({"glyph_fonts": "all"}, "glyph_fonts is 'all', expected 'bundled', 'packages' or 'unseen'"),
        ({"steps": None}, "may be left open only with minutes"),
    ]:
        with pytest.raises(ValueError, match=message):
            recipe(**settings)
    with pytest.raises(ValueError, match="expected one of them: a folder of images, or how they are drawn"):
        TrainConfig()
    assert replace(PRESETS["quick"], seed=1).schedule.minutes and PRESETS["formula"].draw.look == "mixed"


@pytest.mark.slow
def test_the_example_trains_and_reads(tmp_path):
    script = Path(__file__).parents[3] / "examples" / "train_recognizer.py"
    command = [sys.executable, script, tmp_path, "--images", "30", "--minutes", "0.05"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert output[0].startswith("unseen images: exact match") and len(output) == 4
    assert "000002.png" in output[3] and "log-probability" in output[3]
