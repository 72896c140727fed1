"""CTC loss: the drop-in for :func:`torch.nn.functional.ctc_loss` and :class:`torch.nn.CTCLoss`."""

import os

import torch
from torch import Tensor, nn

from fastctc import ops
from fastctc.arguments import INTEGER, Lengths, check_scores, lengths_tensor

__all__ = ["CTCLoss", "ctc_loss", "debug"]

REDUCTIONS = ("none", "mean", "sum")
INVALID = 3  # of enum Status in csrc/math/lattice.h

_debug = os.environ.get("FASTCTC_DEBUG", "0") not in ("", "0")


def debug(enabled: bool) -> None:
    """Turns the checking of values on CUDA on or off (as ``FASTCTC_DEBUG=1`` does from the start).

    On the CPU a label or length out of range always raises an exception. On CUDA looking at values would make
    the host wait for the device, so such a sample gets the loss NaN and a zero gradient instead; with debugging
    on it raises the same exception as on the CPU.
    """
    global _debug
    _debug = enabled


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
    *,
    from_logits: bool = False,
) -> Tensor:
    r"""The connectionist temporal classification loss. Equivalent to :func:`torch.nn.functional.ctc_loss`.

    The loss of a sample is :math:`-\ln P(\text{target} \mid \text{log\_probs})`, the probability being summed
    over all alignments (Graves et al., "Connectionist Temporal Classification", ICML 2006, equations 3 to 8).

    Two things differ from PyTorch. The gradient with respect to ``log_probs`` is the true one, minus the
    probability that a class is emitted in a frame; PyTorch adds ``exp(log_probs)``, which is right only behind
    a log-softmax. Behind one, both give the same gradient of the logits. And the result is the same, to the
    bit, on every run, in every batch and with any number of threads.

    Args:
        log_probs: (T, N, C), or (T, C) for a single sample; float16, bfloat16, float32 or float64; natural-log
            probabilities, or logits if ``from_logits``. Any strides. ``-inf`` is a probability of zero. Frames
            from ``input_lengths[n]`` on are never read.
        targets: (N, S) padded, or (sum of ``target_lengths``) concatenated, or (S) for a single sample; an
            integer tensor on any device. Labels lie in [0, C) and are not ``blank``.
        input_lengths: (N) frames of each sample, at most T: a tensor on any device, a sequence or an int.
        target_lengths: (N) labels of each sample, likewise.
        blank: the index of the blank class.
        reduction: ``"none"``; ``"sum"``; or ``"mean"``: each loss divided by its target length (1 where that is
            0), then the mean over the batch.
        zero_infinity: a sample whose target cannot be aligned (too long for its input) counts as loss 0 instead
            of infinity. Its gradient is 0 either way.
        from_logits: apply a log-softmax over the classes first, in the same passes over memory.

    Returns:
        The loss: a scalar, or (N) for ``reduction="none"`` (a scalar for a single sample); float64 for float64
        input, else float32. A NaN in a frame that is used makes that sample's loss and gradient NaN.

    Raises:
        TypeError: log_probs is not floating-point, or targets or lengths are not integers.
        ValueError: shapes do not match, or a label, length or ``blank`` is out of range. On CUDA the values of
            labels and lengths are checked on the device: see :func:`fastctc.debug`.

    >>> import torch, fastctc
    >>> log_probs = torch.full((4, 1, 3), 1 / 3).log()
    >>> loss = fastctc.ctc_loss(log_probs, torch.tensor([[1, 2]]), [4], [2], reduction="none")
    >>> round(float(torch.exp(-loss)) * 3**4)  # alignments of 1 2 in four frames
    15
    """
    check_scores(log_probs, blank)
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    if not isinstance(targets, Tensor) or targets.dtype not in INTEGER:
        got = targets.dtype if isinstance(targets, Tensor) else type(targets).__name__
        raise TypeError(f"targets must be an integer tensor, got {got}")
    single = log_probs.dim() == 2
    if single:
        log_probs = log_probs.unsqueeze(1)
    frames, batch, _ = log_probs.shape
    if targets.dim() not in (1, 2) or (targets.dim() == 2 and targets.shape[0] != batch):
        raise ValueError(
            f"targets must have shape (N, S) with N = {batch}, or (sum of target_lengths), "
            f"got {tuple(targets.shape)}"
        )

    device = log_probs.device
    targets = targets.to(device=device, dtype=torch.int64).contiguous()
    max_length = _max_length(targets, target_lengths, frames)
    input_lengths = lengths_tensor(input_lengths, "input_lengths", batch, device)
    target_lengths = lengths_tensor(target_lengths, "target_lengths", batch, device)
    need_grad = torch.is_grad_enabled() and log_probs.requires_grad
    arguments = (targets, input_lengths, target_lengths, None, max_length, blank, -1, 0.0)
    loss, _, _, status = ops.ctc_loss(log_probs, *arguments, from_logits, need_grad)
    if _debug and not torch.compiler.is_compiling() and bool((status == INVALID).any()):
        _raise_for_values(log_probs, *arguments)

    if zero_infinity:
        loss = torch.where(loss == torch.inf, torch.zeros_like(loss), loss)
    if reduction == "none":
        return loss.squeeze(0) if single else loss
    if reduction == "sum":
        return loss.sum()
    return (loss / target_lengths.clamp(min=1)).sum() / max(batch, 1)


def _max_length(targets: Tensor, target_lengths: Lengths, frames: int) -> int:
    """A bound on the lengths of feasible targets that needs no look at device memory."""
    if targets.dim() == 2:
        return min(targets.shape[1], frames)
    bound = min(targets.shape[0], frames)
    if torch.compiler.is_compiling():
        return bound
    if isinstance(target_lengths, Tensor):
        if target_lengths.device.type != "cpu" or target_lengths.numel() == 0:
            return bound
        longest = int(target_lengths.max())
    elif isinstance(target_lengths, int):
        longest = target_lengths
    else:
        longest = max((v for v in target_lengths if isinstance(v, int)), default=0)
    return max(0, min(bound, longest))


def _raise_for_values(log_probs: Tensor, *arguments: Tensor | float | None) -> None:
    """Raises what the CPU would say of these labels and lengths, without copying log_probs there."""
    scores = torch.zeros(1, dtype=log_probs.dtype).expand(log_probs.shape)
    on_cpu = [a.cpu() if isinstance(a, Tensor) else a for a in arguments]
    ops.ctc_loss(scores, *on_cpu, False, False)


class CTCLoss(nn.Module):
    """The module form of :func:`fastctc.ctc_loss`. Equivalent to :class:`torch.nn.CTCLoss`.

    >>> import torch, fastctc
    >>> criterion = fastctc.CTCLoss(from_logits=True)
    >>> logits = torch.randn(50, 16, 20, requires_grad=True)
    >>> targets = torch.randint(1, 20, (16, 10))
    >>> loss = criterion(logits, targets, [50] * 16, [10] * 16)
    >>> loss.backward()
    """

    def __init__(
        self,
        blank: int = 0,
        reduction: str = "mean",
        zero_infinity: bool = False,
        *,
        from_logits: bool = False,
    ) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
        self.blank = blank
        self.reduction = reduction
        self.zero_infinity = zero_infinity
        self.from_logits = from_logits

    def forward(
        self, log_probs: Tensor, targets: Tensor, input_lengths: Lengths, target_lengths: Lengths
    ) -> Tensor:
        """The loss of a batch: see :func:`fastctc.ctc_loss`."""
        return ctc_loss(
            log_probs,
            targets,
            input_lengths,
            target_lengths,
            self.blank,
            self.reduction,
            self.zero_infinity,
            from_logits=self.from_logits,
        )

    def extra_repr(self) -> str:
        """The arguments, for ``print``."""
        return (
            f"blank={self.blank}, reduction={self.reduction!r}, zero_infinity={self.zero_infinity}, "
            f"from_logits={self.from_logits}"
        )
