"""CTC loss: drop-ins for :func:`torch.nn.functional.ctc_loss` and :class:`torch.nn.CTCLoss`."""

import torch
from torch import Tensor
from torch.nn.modules.loss import _Loss

from fastctc import autograd, direct
from fastctc.arguments import Lengths, check_number, loss_arguments
from fastctc.direct_loss import direct_loss, plain_loss
from fastctc.errors import ArgumentValueError, refuse_scripting
from fastctc.reduction import REDUCTIONS, reduced

__all__ = ["CTCLoss", "ctc_loss"]


@refuse_scripting
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
    r"""Compute the connectionist temporal classification loss. Drop-in for :func:`torch.nn.functional.ctc_loss`.

    The loss of a sample is :math:`-\ln P(\text{target} \mid \text{log\_probs})`. The probability is the sum
    over all alignments (Graves et al., "Connectionist Temporal Classification", ICML 2006, equations 3 to 8).

    It differs from PyTorch's function as follows:

    - The gradient of ``log_probs`` is the true one: minus the probability that a class is emitted in a frame.
      PyTorch adds ``exp(log_probs)``, which is right only behind a log-softmax. Behind one, both functions
      give the same gradient of the logits.
    - The gradient is right for a target that ends in the blank, too. PyTorch's is wrong in the last frame then.
    - A target that cannot be aligned has the gradient 0, also without ``zero_infinity``. PyTorch's is NaN.
    - The loss of normalized input is never below 0. PyTorch's can be, by rounding.
    - The result has the same bits on every run, in every batch and with any number of threads.
    - There are second derivatives. PyTorch has none.
    - ``log_probs`` may be float16 or bfloat16 on every device. Lengths may be any integers that
      :func:`operator.index` takes, one by one, and an int for a single sample.
    - An empty batch has the loss 0 or an empty loss. PyTorch raises an exception.
    - A label that is no class raises an exception on the CPU, where PyTorch reads other memory. On CUDA a
      label or length out of range gives the sample the loss NaN and the gradient 0: see
      :func:`fastctc.debug`.
    - A wrong argument raises a ``ValueError`` or a ``TypeError`` that is a ``RuntimeError``, too.
    - ``torch.jit.script`` is refused. ``torch.jit.trace``, ``torch.export`` and ``torch.compile`` work.

    Args:
        log_probs: (T, N, C), or (T, C) for a single sample; float16, bfloat16, float32 or float64; natural-log
            probabilities, or logits if ``from_logits``. Any strides. ``-inf`` is a probability of zero. Frames
            from ``input_lengths[n]`` on are never read.
        targets: (N, S) padded, or (sum of ``target_lengths``) concatenated, or (S) for a single sample; an
            integer tensor on any device. Labels lie in [0, C). A label that equals ``blank`` is a label like
            any other, emitted with the blank's probability, as in PyTorch.
        input_lengths: (N) frames of each sample, at most T: a tensor on any device, a sequence or an int.
        target_lengths: (N) labels of each sample: a tensor on any device, a sequence or an int.
        blank: the index of the blank class.
        reduction: ``"none"``; ``"sum"``; or ``"mean"``: each loss divided by its target length (1 where that is
            0), then the mean over the batch. On the CPU the sum is rounded only once, whatever N is.
        zero_infinity: count the loss of a target that cannot be aligned (it is too long for its input) as 0
            instead of infinity. Its gradient is 0 either way.
        from_logits: apply a log-softmax over the classes first, in the same passes over memory.
        focal_gamma: multiply each sample's loss by :math:`(1 - P)^{gamma}` with :math:`P = \exp(-\text{loss})`.
            Samples that are learned already count less (Lin et al., "Focal loss for dense object detection",
            ICCV 2017, equation 4; PaddleOCR's CTC loss has gamma 2). Where P exceeds 1 the result is 0.
        label_priors: (C) finite natural-log priors of the classes. They are subtracted from the
            log-probabilities in every frame (Zeyer, Schlüter and Ney, "Why does CTC result in peaky
            behavior?", 2021). They get no gradient.
        blank_penalty: subtract this many nats from the log-probability of the blank in every frame. (icefall's
            decoders lower the logit by it, before the softmax.)
        delay_penalty: add delay_penalty * ((T-1)/2 - t) to the score of an alignment for each label that it
            begins in frame t (from 0) of the T frames of its sample. Positive values favor early labels
            (Kang et al., "Delay-penalized transducer for low-latency streaming ASR", 2022; k2's ``ctc_loss``
            has T//2 for (T-1)/2, a difference of a constant).
        star: a label, not ``blank`` and not negative, that stands for anything. It covers at least one frame,
            and its probability there is 1 whatever the scores, priors and penalties are. ``star=C`` has the
            effect of a column of zeros appended to ``log_probs`` (the ``<star>`` of MMS: Pratap et al.,
            "Scaling speech technology to 1,000+ languages", 2023). A value below C takes the place of that
            class.

    Returns:
        The loss in nats: a scalar, or (N) for ``reduction="none"`` (a scalar for a single sample); float64 for
        float64 input, else float32. A NaN in a frame that is used makes that sample's loss and gradient NaN.

        The loss is not negative where :math:`P \leq 1` holds. A negative loss is taken for rounding, and
        becomes 0, where the probabilities of the target's classes and the blank add up to at most 1 in each
        frame, but for the rounding of a log-softmax. The loss can be negative

        - of log-probabilities that are not normalized,
        - of a target with a star, or with a label that equals the blank, which have overlapping alignments,
        - with ``label_priors``, a negative ``blank_penalty`` or a ``delay_penalty``: scores are no
          probabilities then.

    Raises:
        TypeError: log_probs is not floating-point, targets or lengths are not integers, a tensor is not dense
            (but sparse, nested or of MKL-DNN), or an option is of another type than above.
        ValueError: shapes do not match, or a label, length, ``blank`` or option is out of range.
        RuntimeError: memory is lacking. The error has the words of PyTorch's allocators; on CUDA it is a
            ``torch.OutOfMemoryError``.
        NotImplementedError: a third derivative is asked for.

    >>> import torch, fastctc
    >>> log_probs = torch.full((4, 1, 3), 1 / 3).log()
    >>> loss = fastctc.ctc_loss(log_probs, torch.tensor([[1, 2]]), [4], [2], reduction="none")
    >>> round(float(torch.exp(-loss)) * 3**4)  # alignments of 1 2 in four frames
    15
    """
    if label_priors is None and star is None and _are_zero(focal_gamma, blank_penalty, delay_penalty):
        tensors = log_probs, targets, input_lengths, target_lengths
        loss = plain_loss(tensors, blank, reduction, zero_infinity, from_logits)
        if loss is not None:
            return loss
    focal_gamma = _check_options(reduction, focal_gamma)
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
    zero_infinity = bool(zero_infinity)
    if focal_gamma == 0 and direct.applies(*arguments.tensors):
        loss = direct_loss(arguments, reduction, zero_infinity)
    else:
        losses = autograd.ctc_loss(arguments)
        if focal_gamma != 0:
            losses = _focal(losses, focal_gamma)
        loss = reduced(losses, arguments.target_lengths, reduction, zero_infinity)
    return loss.squeeze(0) if reduction == "none" and log_probs.dim() == 2 else loss


def _are_zero(*options: object) -> bool:
    """Return True if all options are the float 0."""
    for option in options:  # noqa: SIM110  all() of a generator costs twice as much
        if type(option) is not float or option != 0:
            return False
    return True


def _check_options(reduction: str, focal_gamma: float) -> float:
    """Check the options that the ops do not take; return focal_gamma as a float."""
    if reduction not in REDUCTIONS:
        raise ArgumentValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    gamma = check_number(focal_gamma, "focal_gamma")
    if gamma < 0:
        raise ArgumentValueError(f"focal_gamma is {focal_gamma}, but must not be negative")
    return gamma


def _focal(loss: Tensor, gamma: float) -> Tensor:
    """Return loss * (1 - exp(-loss))^gamma, or 0 where the loss is at most 0. No derivative is NaN."""
    zero, infinite = loss <= torch.finfo(loss.dtype).tiny, loss == torch.inf
    inside = torch.where(zero | infinite, 1, loss)
    focal = inside * (-torch.expm1(-inside)) ** gamma
    return torch.where(infinite, loss, torch.where(zero, 0, focal))


@refuse_scripting
class CTCLoss(_Loss):
    """The module form of :func:`fastctc.ctc_loss`. Drop-in for :class:`torch.nn.CTCLoss`.

    The arguments are the options of the function. ``label_priors`` becomes a buffer, which moves with the
    module.

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
        _check_options(reduction, focal_gamma)
        super().__init__(reduction=reduction)
        self.blank = blank
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
        """Compute the loss of a batch: see :func:`fastctc.ctc_loss`."""
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
        """Return the options, for ``print``."""
        options = ("blank", "reduction", "zero_infinity", "from_logits")
        names = (*options, "focal_gamma", "blank_penalty", "delay_penalty", "star")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
