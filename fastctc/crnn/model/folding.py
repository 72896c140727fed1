"""A network for reading alone: normalization folded into convolutions, weights in the order of the processor."""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from fastctc.convolution import MULTIPLE, convolution, has_kernel, pack_convolution
from fastctc.crnn.model.masked_norm import MaskedBatchNorm, cut_padding, finished, pooled
from fastctc.crnn.model.network import CRNN, ConvHead, ConvStage, ResidualConv


def folded(model: CRNN) -> CRNN:
    """Return a copy of a model for reading, its normalization folded into the convolutions.

    Its output differs from the model's by rounding. It cannot be trained or saved.
    """
    model = copy.deepcopy(model).eval()
    for stage in cast("list[ConvStage]", model.stages):
        conv = stage.conv if stage.norm is None else fuse_conv_bn_eval(stage.conv, stage.norm)
        stage.conv, stage.norm = _Conv(conv, "relu"), cast(Any, _Folded())
        for each in cast("list[ResidualConv]", stage.residuals):
            each.conv, each.norm = (
                _Conv(fuse_conv_bn_eval(each.conv, each.norm), "relu"),
                cast(Any, _Folded()),
            )
    if isinstance(model.head, ConvHead):
        convs, norms = model.head.convs, model.head.norms
        for i in range(len(convs)):
            conv, norm = cast(nn.Conv2d, convs[i]), cast(MaskedBatchNorm, norms[i])
            convs[i], norms[i] = _Conv(fuse_conv_bn_eval(conv, norm), "relu"), _Folded()
        model.project[0] = _Linear(cast(nn.Linear, model.project[0]))
        model.classify = cast(Any, _Linear(model.classify))
        model.direct = _Direct(model)
    return model


class _Direct:
    """The operations of a folded network with a convolutional head, without its modules.

    The calls of modules would take a fifth of the time of a single image, and the masks of padding as much.
    """

    def __init__(self, model: CRNN) -> None:
        self.columns = model._columns
        stages = cast("list[ConvStage]", model.stages)
        self.stages = [
            (
                _apply(stage),
                stage.stride,
                stage.pool,
                [_apply(each) for each in cast("list[ResidualConv]", stage.residuals)],
            )
            for stage in stages
        ]
        self.linear, self.norm, _ = cast("tuple[_Linear, nn.LayerNorm, nn.ReLU]", model.project)
        self.convs = [conv.apply_to for conv in cast("list[_Conv]", cast(ConvHead, model.head).convs)]
        self.classify = cast(_Linear, model.classify)
        self.has_kernels = all(each.has_kernel for each in model.modules() if isinstance(each, _Conv))

    def __call__(self, x: Tensor, widths: list[int]) -> Tensor | None:
        """Map images (N, 1, H, W), zero behind their widths, to logits (N, T, C), to the bit as the modules.

        Return None if neither our kernel nor oneDNN computes them.
        """
        dtype = _dtype(x)
        if not _is_computed(x, dtype, self.has_kernels):
            return None
        for conv, stride, pool, residuals in self.stages:
            widths = [-(-width // stride) for width in widths]
            x = conv(x.to(dtype), widths, pool)
            widths = [-(-width // pool[1]) for width in widths]
            for each in residuals:
                x = each(x, widths, adds_input=True)
        norm = self.norm
        frames = self.linear.apply_to(self.columns(x))
        frames = F.layer_norm(frames, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        x = cut_padding(F.relu(frames, inplace=True).transpose(1, 2).unsqueeze(2), widths)
        for conv in self.convs:
            x = conv(x.to(dtype), widths, adds_input=True)
        return self.classify.apply_to(x.squeeze(2).transpose(1, 2).to(dtype))


def _apply(part: ConvStage | ResidualConv) -> Callable[..., Tensor]:
    return cast(_Conv, part.conv).apply_to


class _Folded(nn.Module):
    """The place of a normalization and ReLU that are folded into the convolution before it."""

    def forward(
        self,
        x: Tensor,
        inside: Tensor | None = None,
        pool: tuple[int, int] = (1, 1),
        added: Tensor | None = None,
    ) -> Tensor:
        return finished(x, inside, pool, added)


class _Conv(nn.Conv2d):
    """Convolution and what follows it, ``"relu"`` or ``"none"``.

    In float32 our kernel computes it, if it has the shape for it. On x86, oneDNN computes the others.

    PyTorch chooses between kernels by the size of a batch and the number of threads. Here one kernel takes all
    batches, so rounding does not depend on threads. The weights are put into the kernel's order once.
    """

    def __init__(self, conv: nn.Conv2d, then: str) -> None:
        super().__init__(
            conv.in_channels, conv.out_channels, cast(Any, conv.kernel_size), cast(Any, conv.stride),
            cast(Any, conv.padding), cast(Any, conv.dilation), conv.groups, device="meta",
        )  # fmt: skip
        self.weight, self.bias, self.then = conv.weight, conv.bias, then
        self._packed: dict[Any, tuple[Any, ...]] = {}
        self.has_kernel = has_kernel(self)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_packed": {}}

    def forward(self, x: Tensor) -> Tensor:
        """Apply both to (N, C, H, W)."""
        dtype = _dtype(x)
        if _is_computed(x, dtype, self.has_kernel):
            return self.apply_to(x.to(dtype), [x.shape[3]] * len(x))
        y: Tensor = super().forward(x)
        return F.relu(y, inplace=True) if self.then == "relu" else y

    def apply_to(
        self, x: Tensor, widths: list[int], pool: tuple[int, int] = (1, 1), *, adds_input: bool = False
    ) -> Tensor:
        """Apply both, in the type of the input.

        Then the padding behind ``widths`` is set to zero, the input is added, and the result is pooled.
        """
        if self.has_kernel and x.dtype == torch.float32:
            weight, bias = self._packed.get("kernel") or self._pack_for_kernel()
            y: Tensor = convolution(
                x.contiguous(memory_format=torch.channels_last), weight, bias, widths, self.dilation[1],
                self.then == "relu", adds_input, *pool,
            )  # fmt: skip
            return y[:, : self.out_channels]
        packed = self._packed.get((x.dtype, _is_small(x))) or self._pack(x)
        y = cut_padding(torch.ops.mkldnn._convolution_pointwise.default(x, *packed), widths)
        if adds_input:
            y = x + y
        return y if pool == (1, 1) else pooled(y, pool)

    def _pack_for_kernel(self) -> tuple[Any, ...]:
        """Return and keep weights and bias as our kernel takes them, with outputs that are a multiple of 16."""
        more = -self.out_channels % MULTIPLE
        weight = F.pad(self.weight.detach(), (0, 0, 0, 0, 0, 0, 0, more)).contiguous()
        bias = self.weight.new_zeros(self.out_channels) if self.bias is None else self.bias.detach()
        packed = pack_convolution(weight), F.pad(bias, (0, more))
        self._packed["kernel"] = packed
        return packed

    def _pack(self, x: Tensor) -> tuple[Any, ...]:
        """Return and keep what oneDNN takes after such an input, the weights in the processor's order."""
        place = (self.padding, self.stride, self.dilation, self.groups)
        bias = None if self.bias is None else self.bias.detach().to(x.dtype)
        weight = torch.ops.mkldnn._reorder_convolution_weight(
            self.weight.detach().to(x.dtype), *place, x.shape if _is_small(x) else None
        )
        packed: tuple[Any, ...] = (weight, bias, *place, self.then, [], "")
        self._packed[x.dtype, _is_small(x)] = packed
        return packed


class _Linear(nn.Module):
    """A linear map of frames (N, T, features), as a convolution: products of matrices depend on the threads."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        conv = nn.Conv2d(linear.in_features, linear.out_features, 1, device="meta")
        conv.weight, conv.bias = nn.Parameter(linear.weight[:, :, None, None]), linear.bias
        self.conv = _Conv(conv, "none")

    def forward(self, frames: Tensor) -> Tensor:
        """Apply it to (N, T, features)."""
        return self._apply_by(self.conv, frames)

    def apply_to(self, frames: Tensor) -> Tensor:
        """Apply it in the type of the input."""
        widths = [frames.shape[1]] * len(frames)
        return self._apply_by(lambda x: self.conv.apply_to(x, widths), frames)

    @staticmethod
    def _apply_by(conv: Callable[[Tensor], Tensor], frames: Tensor) -> Tensor:
        return conv(frames.transpose(1, 2).unsqueeze(2)).squeeze(2).transpose(1, 2)


def _is_small(x: Tensor) -> bool:
    """Return True if oneDNN may use weights in another order for (N, C, H, W).

    To change the order in each call would take longer than all layers.
    """
    return x.shape[2] * x.shape[3] < 96


def _dtype(x: Tensor) -> torch.dtype:
    """Return the type that a convolution of an input is computed in."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def _is_computed(x: Tensor, dtype: torch.dtype, has_kernel: bool) -> bool:
    """Return True if our kernel, if there is one, or oneDNN computes the convolution of an input."""
    if x.device.type != "cpu" or torch.is_grad_enabled():
        return False
    if has_kernel and dtype == torch.float32:
        return True
    is_known = dtype in (torch.float32, torch.bfloat16)
    return is_known and _HAS_ONEDNN and bool(torch.backends.mkldnn.enabled)


_HAS_ONEDNN = torch._C._has_mkldnn and platform.machine() in ("x86_64", "AMD64")
