"""CTC loss: the drop-in for :func:`torch.nn.functional.ctc_loss` and :class:`torch.nn.CTCLoss`."""

import torch
from torch import Tensor, nn

from fastctc import autograd
from fastctc.arguments import Lengths, check_number, loss_arguments

__all__ = ["CTCLoss", "ctc_loss"]

REDUCTIONS = ("none", "mean", "sum")


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
    focal_gamma: float = 0.0,
    label_priors: Tensor | None = None,
    blank_penalty: float = 0.0,
    delay_penalty: float = 0.0,
    star: int | None = None,
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
        focal_gamma: weighs each sample's loss by :math:`(1 - P)^{gamma}` with :math:`P = \exp(-\text{loss})`, so
            that samples already learned count less (Lin et al., "Focal loss for dense object detection", ICCV
            2017, equation 4; PaddleOCR's CTC loss has gamma 2). Where P exceeds 1 the result is 0.
        label_priors: (C) finite natural-log priors of the classes, subtracted from their log-probabilities in
            every frame (Zeyer, Schlüter and Ney, "Why does CTC result in peaky behavior?", 2021).
            A constant: no gradient flows to it.
        blank_penalty: what the log-probability of the blank is lowered by in every frame, in nats. (icefall's
            decoders lower the logit by it, before the softmax.)
        delay_penalty: adds delay_penalty * ((T-1)/2 - t) to the score of an alignment for each label that it
            begins in frame t (from 0) of the T frames of its sample, so that positive values favor early labels
            (Kang et al., "Delay-penalized transducer for low-latency streaming ASR", 2022; k2's ``ctc_loss``
            has T//2 for (T-1)/2, a difference of a constant).
        star: a label, not ``blank`` and not negative, that stands for anything: in each frame that it covers, at
            least one, its probability is 1 whatever the scores, priors and penalties are. ``star=C`` has the
            effect of a column of zeros appended to ``log_probs`` (the ``<star>`` of MMS: Pratap et al., "Scaling
            speech technology to 1,000+ languages", 2023). A value below C takes that class's place.

    With any of the last four the loss is the negative logarithm of a score that is no probability: it can be
    negative.

    Returns:
        The loss: a scalar, or (N) for ``reduction="none"`` (a scalar for a single sample); float64 for float64
        input, else float32. A NaN in a frame that is used makes that sample's loss and gradient NaN.

    Raises:
        TypeError: log_probs is not floating-point, targets or lengths are not integers, or an option is of
            another type than above.
        ValueError: shapes do not match, or a label, length, ``blank`` or option is out of range. On CUDA the
            values of labels and lengths are checked on the device: see :func:`fastctc.debug`.

    >>> import torch, fastctc
    >>> log_probs = torch.full((4, 1, 3), 1 / 3).log()
    >>> loss = fastctc.ctc_loss(log_probs, torch.tensor([[1, 2]]), [4], [2], reduction="none")
    >>> round(float(torch.exp(-loss)) * 3**4)  # alignments of 1 2 in four frames
    15
    """
    _check_options(reduction, focal_gamma)
    arguments = loss_arguments(
        log_probs,
        targets,
        input_lengths,
        target_lengths,
        blank,
        from_logits=from_logits,
        star=star,
        label_priors=label_priors,
        blank_penalty=blank_penalty,
        delay_penalty=delay_penalty,
    )
    loss = autograd.ctc_loss(arguments)
    if zero_infinity:
        loss = torch.where(loss == torch.inf, 0, loss)
    if focal_gamma != 0:
        loss = _focal(loss, focal_gamma)
    if reduction == "none":
        return loss.squeeze(0) if log_probs.dim() == 2 else loss
    if reduction == "mean":
        loss = loss / arguments.target_lengths.clamp(min=1)
        if loss.shape[0] != 0:
            return loss.mean()
    return loss.sum()


def _check_options(reduction: str, focal_gamma: float) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    check_number(focal_gamma, "focal_gamma")
    if focal_gamma < 0:
        raise ValueError(f"focal_gamma is {focal_gamma}, but must not be negative")


def _focal(loss: Tensor, gamma: float) -> Tensor:
    """loss * (1 - exp(-loss))^gamma: 0 where the loss is at most 0, and infinity stays; no derivative is NaN."""
    zero, infinite = loss <= torch.finfo(loss.dtype).tiny, loss == torch.inf
    inside = torch.where(zero | infinite, 1, loss)
    focal = inside * (-torch.expm1(-inside)) ** gamma
    return torch.where(infinite, loss, torch.where(zero, 0, focal))


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
        focal_gamma: float = 0.0,
        label_priors: Tensor | None = None,
        blank_penalty: float = 0.0,
        delay_penalty: float = 0.0,
        star: int | None = None,
    ) -> None:
        super().__init__()
        _check_options(reduction, focal_gamma)
        self.blank = blank
        self.reduction = reduction
        self.zero_infinity = zero_infinity
        self.from_logits = from_logits
        self.focal_gamma = focal_gamma
        self.label_priors: Tensor | None
        self.register_buffer("label_priors", label_priors)
        self.blank_penalty = blank_penalty
        self.delay_penalty = delay_penalty
        self.star = star

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
            focal_gamma=self.focal_gamma,
            label_priors=self.label_priors,
            blank_penalty=self.blank_penalty,
            delay_penalty=self.delay_penalty,
            star=self.star,
        )

    def extra_repr(self) -> str:
        """The arguments, for ``print``."""
        options = ("blank", "reduction", "zero_infinity", "from_logits")
        names = (*options, "focal_gamma", "blank_penalty", "delay_penalty", "star")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
