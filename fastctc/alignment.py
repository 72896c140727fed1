"""Where in time the labels of a target are."""

import torch
from torch import Tensor

from fastctc import ops
from fastctc.arguments import Lengths, LossArguments, check_status, loss_arguments, transforms_active

__all__ = ["ctc_posteriors"]


def ctc_posteriors(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    *,
    from_logits: bool = False,
    compact: bool = False,
    label_priors: Tensor | None = None,
    blank_penalty: float = 0.0,
    delay_penalty: float = 0.0,
    star: int | None = None,
) -> Tensor:
    r"""The probability of each class in each frame, given that the frames spell the target.

    :math:`\gamma_t(c) = P(\text{path}_t = c \mid \text{target})`, minus the derivative of
    ``fastctc.ctc_loss(..., reduction="sum")`` with respect to log-probabilities (Graves et al., "Connectionist
    Temporal Classification", ICML 2006, equations 14 and 15), from the same kernels. The result carries no
    gradient.

    Args:
        log_probs: as the other arguments not described here, see :func:`fastctc.ctc_loss`.
        targets: likewise.
        input_lengths: likewise.
        target_lengths: likewise.
        blank: likewise.
        from_logits: likewise.
        compact: return the posteriors of the target's labels, position by position, instead of those of the
            classes: nothing is as large as ``log_probs`` then.
        label_priors: likewise.
        blank_penalty: likewise.
        delay_penalty: likewise.
        star: likewise. A star's posterior is that of no class: in a frame the classes sum to 1 less that.

    Returns:
        (T, N, C), or (T, C) for a single sample; float64 for float64 input, else float32. The classes of a frame
        in use sum to 1.

        With ``compact`` (N, T, S), or (T, S): the probability that label i emits frame t. The blank has what is
        missing to 1. S is the number of columns of ``targets``; of concatenated ones the length of the longest
        target, or a bound on it where ``target_lengths`` are on a GPU, compiled or transformed.

        Frames and labels beyond a sample's lengths are 0, so is a sample whose target cannot be aligned. A NaN
        in a frame that is used makes all used frames of its sample NaN.

    Raises:
        TypeError, ValueError: as :func:`fastctc.ctc_loss`. On CUDA a sample with a label or length out of range
            is 0: see :func:`fastctc.debug`.

    >>> import torch, fastctc
    >>> log_probs = torch.full((3, 3), 1 / 3).log()
    >>> gamma = fastctc.ctc_posteriors(log_probs, torch.tensor([1]), 3, 1)  # 1--, 11-, -1-, -11, --1, 111
    >>> (6 * gamma).round().int().tolist()
    [[3, 3, 0], [2, 4, 0], [3, 3, 0]]
    """
    arguments = loss_arguments(
        log_probs.detach() if isinstance(log_probs, Tensor) else log_probs,
        targets,
        input_lengths,
        target_lengths,
        blank,
        from_logits,
        label_priors,
        blank_penalty,
        delay_penalty,
        star,
    )
    _, *results = ops.ctc_loss(*arguments, True)
    if not torch.compiler.is_compiling() and not transforms_active():
        check_status(results[-1], arguments)
    if compact:
        gamma, batch_dim = _of_labels(arguments, *results), 0
    else:
        gamma, batch_dim = _of_classes(arguments, *results), 1
    return gamma.squeeze(batch_dim) if log_probs.dim() == 2 else gamma


def _of_classes(
    arguments: LossArguments, occupancy: Tensor, row_statistics: Tensor, status: Tensor
) -> Tensor:
    """(T, N, C): minus the gradient by log-probabilities, which does not depend on them beyond the occupancies."""
    weights = occupancy.new_full((occupancy.shape[0],), -1.0)
    scores = occupancy.new_zeros(()).expand(arguments.input.shape)
    _, *labels, class_bias, _, blank, star, delay_penalty, _ = arguments
    results = occupancy, row_statistics, status
    return ops.ctc_loss_backward(
        weights, scores, *labels, *results, class_bias, blank, star, delay_penalty, False
    )


def _of_labels(arguments: LossArguments, occupancy: Tensor, _: Tensor, status: Tensor) -> Tensor:
    """(N, T, S): the occupancies, NaN for a sample that has read one."""
    frames = torch.arange(occupancy.shape[1], device=occupancy.device)
    used = frames < arguments.input_lengths[:, None]
    not_a_number = (status == ops.NOT_A_NUMBER)[:, None] & used
    occupancy = occupancy.masked_fill(not_a_number[:, :, None], torch.nan)
    columns = arguments.targets.shape[1] if arguments.targets.dim() == 2 else occupancy.shape[2]
    return torch.nn.functional.pad(occupancy, (0, columns - occupancy.shape[2]))
