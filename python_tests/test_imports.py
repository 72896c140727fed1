"""The loss, alignment and decoding need torch alone: `import fastctc` imports nothing of the recognizer."""

from __future__ import annotations

import subprocess
import sys

# Everything of pyproject.toml's dependencies but torch, and the packages of the extras.
BLOCKED = ("PIL", "captcha", "safetensors", "tqdm", "numpy", "matplotlib", "tensorboard", "lmdb", "onnx")

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
