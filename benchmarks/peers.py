"""The CTC losses that are compared, each called as it likes best: fastctc, PyTorch, cuDNN, optax, Paddle.

    torch   torch.nn.functional.ctc_loss, PyTorch's own kernels
    cudnn   the same function where PyTorch hands it to cuDNN: on CUDA, with concatenated int32 targets on the
            CPU, blank 0, at most 256 labels and all inputs of full length
    optax   optax.ctc_loss under jax.jit, compiled beforehand, (N, T, C); on the CPU only
    paddle  paddle.nn.functional.ctc_loss, which is Baidu's warp-ctc; on the CPU only

The last two are left out where they are not installed. Both apply a log-softmax to whatever they get, so from
log-probs they do more than they must; there is no way to ask for less.
"""

from __future__ import annotations

import importlib.metadata
import os
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import fastctc
from cases import Case

Loss = Callable[[Tensor], Tensor]  # from logits or log-probs to the sum of a batch's losses


class Peer:
    """One loss: `prepare` its input, time the call, look at what it gave with `result`. This one is in PyTorch."""

    def __init__(self, loss: Loss) -> None:
        self.loss = loss

    def prepare(self, scores: Tensor) -> Any:
        """Return `scores` (T, N, C), which requires a gradient, in the form that the call takes."""
        return scores

    def __call__(self, scores: Any) -> tuple[Any, Any]:
        """Return the summed loss and its gradient."""
        loss = self.loss(scores)
        (gradient,) = torch.autograd.grad(loss, scores)
        return loss.detach(), gradient

    def result(self, loss: Any, gradient: Any) -> tuple[float, Tensor]:
        """Return the loss and its gradient (T, N, C) in float64 on the CPU."""
        return float(loss), gradient.double().cpu()


class Optax(Peer):
    """Float32 arrays on the CPU, batch first; lengths as masks of the padding."""

    def __init__(self, case: Case) -> None:
        import jax
        import optax  # type: ignore[import-not-found, unused-ignore]

        self.jax = jax
        frames, labels = torch.tensor(case.input_lengths), torch.tensor(case.target_lengths)
        frame_padding = (torch.arange(case.shape.T) >= frames[:, None]).float()
        label_padding = (torch.arange(case.shape.S) >= labels[:, None]).float()
        there = (frame_padding, case.targets.int(), label_padding)
        self.arguments = [jax.numpy.asarray(each.numpy()) for each in there]
        self.step = jax.jit(jax.value_and_grad(lambda scores, *rest: optax.ctc_loss(scores, *rest).sum()))

    def prepare(self, scores: Tensor) -> Any:
        return self.jax.numpy.array(scores.detach().transpose(0, 1).contiguous().numpy())

    def __call__(self, scores: Any) -> tuple[Any, Any]:
        found: tuple[Any, Any] = self.jax.block_until_ready(self.step(scores, *self.arguments))
        return found

    def result(self, loss: Any, gradient: Any) -> tuple[float, Tensor]:
        return float(loss), torch.tensor(gradient.__array__()).double().transpose(0, 1)


class Paddle(Peer):
    """Float32 (T, N, C) on the CPU."""

    def __init__(self, case: Case) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a missing ccache
            import paddle  # type: ignore[import-not-found, unused-ignore]

        paddle.set_device("cpu")
        self.paddle = paddle
        self.targets = paddle.to_tensor(case.targets.int().numpy())
        self.lengths = [paddle.to_tensor(each, "int64") for each in (case.input_lengths, case.target_lengths)]

    def prepare(self, scores: Tensor) -> Any:
        return self.paddle.to_tensor(scores.detach().numpy(), stop_gradient=False)

    def __call__(self, scores: Any) -> tuple[Any, Any]:
        loss = self.paddle.nn.functional.ctc_loss(scores, self.targets, *self.lengths, reduction="sum")
        return loss, self.paddle.grad(loss, scores)[0]

    def result(self, loss: Any, gradient: Any) -> tuple[float, Tensor]:
        return float(loss), torch.tensor(gradient.numpy()).double()


OTHERS: dict[str, Callable[[Case], Peer]] = {"optax": Optax, "paddle": Paddle}
NAMES = ["torch", "cudnn", *OTHERS]
PACKAGES = {"optax": ["optax", "jax"], "paddle": ["paddlepaddle"]}  # that must be installed


def in_torch(case: Case, scores: Tensor, from_logits: bool) -> dict[str, Peer]:
    """Return fastctc, torch and, where PyTorch would use it, cuDNN; for inputs like `scores`."""
    device = scores.device
    lengths = case.input_lengths, case.target_lengths
    lengths_there = [torch.tensor(each, device=device) for each in lengths]
    targets_there = case.targets.to(device)
    targets_of_cudnn = case.concatenated().int()

    def ours(scores: Tensor) -> Tensor:
        return fastctc.ctc_loss(
            scores, targets_there, *lengths_there, reduction="sum", from_logits=from_logits
        )

    def torchs(targets: Tensor) -> Loss:
        if from_logits:
            return lambda logits: F.ctc_loss(logits.log_softmax(-1), targets, *lengths, reduction="sum")
        return lambda log_probs: F.ctc_loss(log_probs, targets, *lengths, reduction="sum")

    sides = {"fastctc": ours, "torch": torchs(targets_there)}
    if device.type == "cuda" and torch._use_cudnn_ctc_loss(scores.detach(), targets_of_cudnn, *lengths, 0):
        sides["cudnn"] = torchs(targets_of_cudnn)
    return {name: Peer(loss) for name, loss in sides.items()}


def versions(packages: Iterable[str]) -> str | None:
    """Return the versions of all these packages; None if one is not installed."""
    try:
        return ", ".join(f"{each} {importlib.metadata.version(each)}" for each in packages)
    except importlib.metadata.PackageNotFoundError:
        return None


def version(name: str) -> str | None:
    """Return the versions of the packages behind a peer; None if one is not installed."""
    return versions(PACKAGES[name])


def others(case: Case, names: list[str]) -> dict[str, Peer]:
    """Return the peers outside PyTorch; call `limit_threads` before."""
    return {name: OTHERS[name](case) for name in names}


def limit_threads(threads: int) -> None:
    """Limit the CPU threads of jax and Paddle, which read the environment when they are first imported.

    jax gives its pool NPROC threads (it makes more, which wait or compile). Paddle's warp-ctc uses one thread
    in any case, the rest of Paddle OpenMP's.
    """
    os.environ["NPROC"] = os.environ["PJRT_NPROC"] = os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ["JAX_PLATFORMS"] = "cpu"
    if threads == 1:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
