"""The loss, alignment and decoding need torch alone: `import fastctc` imports nothing of the recognizer."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fastctc

# Everything of pyproject.toml's dependencies but torch, and the packages of the extras.
BLOCKED = (
    "PIL",
    "captcha",
    "safetensors",
    "tqdm",
    "numpy",
    "matplotlib",
    "tensorboard",
    "lmdb",
    "onnx",
    "pyarrow",
)

SCRIPT = f"""
import sys

class Blocker:
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {BLOCKED}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
import torch
import fastctc

assert not [name for name in sys.modules if name.startswith("fastctc.crnn")]
x = torch.full((4, 1, 3), 1 / 3).log().requires_grad_()
loss = fastctc.ctc_loss(x, torch.tensor([[1, 2]]), [4], [2], reduction="sum")
loss.backward()
print(round(float((-loss).exp() * 3**4)), -round(float(x.grad.sum())))
log_probs = torch.eye(3)[[1, 1, 0, 2]].log_softmax(1)
print(fastctc.forced_align(log_probs, torch.tensor([1, 2]))[0].tolist())
print(fastctc.greedy_decode(log_probs).to_list(), fastctc.beam_search(log_probs).best().to_text("-ab"))
print([name for name in {BLOCKED} if name in sys.modules])
"""


def test_the_core_needs_torch_alone() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["15 4", "[1, 1, 0, 2]", "[1, 2] ab", "[]"]


COMMAND = """
import sys, time
start = time.perf_counter()
sys.argv = ["/usr/bin/fastctc", sys.argv[1]]
try:
    from fastctc.cli import main
    main()
finally:
    print(time.perf_counter() - start, "torch" in sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize(("option", "answer"), [("--help", "usage: fastctc"), ("--version", "fastctc 0.")])
def test_the_command_answers_without_torch(option: str, answer: str) -> None:
    results = [
        subprocess.run([sys.executable, "-c", COMMAND, option], capture_output=True, text=True)
        for _ in range(3)
    ]
    assert all(done.returncode == 0 and done.stdout.startswith(answer) for done in results)
    seconds, has_torch = zip(*(done.stderr.split() for done in results))
    assert set(has_torch) == {"False"}
    assert min(map(float, seconds)) < 0.3


def test_the_command_has_all_names() -> None:
    """They are loaded at their first use."""
    script = "import sys; sys.argv = ['fastctc']; import fastctc; assert 'torch' not in sys.modules; "
    script += "print([getattr(fastctc, name).__name__ for name in fastctc.__all__ if name != '__version__'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([name for name in fastctc.__all__ if name != "__version__"])


def test_the_operators_are_registered_by_the_import() -> None:
    script = "import fastctc, torch; print(torch.ops.fastctc.ctc_loss.default)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "fastctc.ctc_loss.default", done.stderr
