"""What the caller has set in torch changes nothing: default dtype and device, modes, threads, random numbers."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from recipes import recipe

from fastctc.crnn import Recognizer, evaluate, explain, load_checkpoint, overfit_one_batch, summarize, train
from fastctc.crnn.data import Drawn, write_folder
from fastctc.crnn.formulas import FormulaConstraint, FormulaSource
from fastctc.crnn.model import load_state

SOURCE = FormulaSource(renderer="captcha", seed=3)


@contextlib.contextmanager
def default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")  # a tensor that lands there has no values
    try:
        yield
    finally:
        torch.set_default_device(None)


STATES: dict[str, Callable[[], contextlib.AbstractContextManager[object]]] = {
    "default dtype": default_dtype,
    "default device": default_device,
    "device context": lambda: torch.device("meta"),
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("formulas")
    write_folder(SOURCE, path, 24)
    return path


def read_all(folder: Path) -> list[object]:
    """Load, read, explain and evaluate; return what came of it as numbers and texts."""
    recognizer = Recognizer.load("formula")
    images = sorted(folder.glob("*.png"))[:4]
    readings = recognizer.read(images)
    readings += recognizer.read(images, beam_size=5, nbest=2)
    readings += recognizer.read(images[:1], constraint=FormulaConstraint())
    explained = explain(recognizer, images[0])
    evaluation = evaluate(recognizer, Drawn(SOURCE, 3))
    return [
        *[(each.text, each.score, each.nbest, each.spans) for each in readings],
        *[each.evidence.log_probs.tolist() for each in readings if each.evidence],
        explained.characters,
        explained.posteriors.tolist(),
        evaluation.outcomes,
        str(summarize(recognizer.model)),
    ]


def train_all(folder: Path, out: Path, **settings: object) -> str:
    """Train, stop and resume; return a hash of the state that is left."""
    config = recipe(
        data=str(folder), steps=4, batch_size=8, height=32, channels=4, hidden=8, threads=1, precision="fp32",
        optimizer="muon", ema=0.9, **settings,
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        train(config, out, show_progress=False, should_stop=lambda step: step == 2)
    train(config, out, show_progress=False, resume=True)
    return digest(load_state(out / "state.pt"))


def digest(state: dict[str, object]) -> str:
    content = hashlib.sha256()

    def walk(value: object) -> None:
        if isinstance(value, torch.Tensor):
            content.update(value.double().numpy().tobytes())
        elif isinstance(value, dict):
            for key in value:
                walk(value[key])
        elif isinstance(value, list):
            for each in value:
                walk(each)

    walk({key: state[key] for key in ("model", "average", "optimizer")})
    return content.hexdigest()


@pytest.fixture(scope="module")
def expected(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[object], str]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = read_all(folder), train_all(folder, tmp_path_factory.mktemp("run"))
    torch.set_num_threads(threads)
    return found


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", STATES)
def test_reading_has_the_same_bits(name, folder, expected):
    with STATES[name]():
        found = read_all(folder)
    assert found == expected[0]


@pytest.mark.parametrize("name", STATES)
def test_training_has_the_same_bits(name, folder, expected, tmp_path):
    with STATES[name]():
        found = train_all(folder, tmp_path)
    assert found == expected[1]


def test_overfitting_a_batch_works_in_inference_mode(folder):
    config = recipe(
        data=str(folder), channels=8, hidden=16, height=32, threads=1, precision="fp32", max_lr=0.01
    )
    with torch.inference_mode():
        assert overfit_one_batch(config, show_progress=False).steps > 1


def test_a_model_loaded_in_inference_mode_can_be_trained():
    with torch.inference_mode(), torch.device("meta"):
        model = load_checkpoint("formula").model.train()
    weight = model.classify.weight
    assert weight.dtype == torch.float32 and weight.device.type == "cpu" and weight.requires_grad
    log_probs, _ = model(torch.zeros(1, 1, 64, 40))
    log_probs.sum().backward()
    assert weight.grad is not None


def test_what_was_read_can_be_used_with_gradients():
    evidence = Recognizer.load("formula").read(SOURCE(0)[0]).evidence
    frames = evidence.log_probs.requires_grad_()
    frames.sum().backward()
    assert frames.grad is not None


def test_the_callers_random_numbers_stay(folder, tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    Recognizer.load("formula").read(SOURCE(0)[0])
    train_all(folder, tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_threads_read_and_train_at_once(folder, expected, tmp_path):
    """Threads start without the settings of the main one, and do not disturb each other's random numbers."""
    found: dict[str, object] = {}

    def run(name: str, work: Callable[[], object]) -> None:
        torch.set_num_threads(1)
        found[name] = work()

    works: dict[str, Callable[[], object]] = {
        "read 0": lambda: read_all(folder),
        "read 1": lambda: read_all(folder),
        "train 0": lambda: train_all(folder, tmp_path / "0"),
        "train 1": lambda: train_all(folder, tmp_path / "1"),
    }
    before = list(warnings.filters)
    threads = [threading.Thread(target=run, args=each) for each in works.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before
    assert found == {name: expected[name.startswith("train")] for name in works}
