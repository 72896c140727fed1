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

from fastctc.crnn.model.masked_norm import MaskedBatchNorm
from fastctc.crnn.model.network import CRNN, ConvHead, ConvStage, ResidualConv, pooled


def folded(model: CRNN) -> CRNN:
    """Return a copy of a model for reading, its normalization folded into the convolutions.

    Its output differs from the model's by rounding. It cannot be trained or saved.
    """
    model = copy.deepcopy(model).eval()
    for stage in cast("list[ConvStage]", model.stages):
        conv = stage.conv if stage.norm is None else fuse_conv_bn_eval(stage.conv, stage.norm)
        stage.conv, stage.norm = _ConvReLU(conv), cast(Any, _Folded())
        for each in cast("list[ResidualConv]", stage.residuals):
            each.conv, each.norm = _ConvReLU(fuse_conv_bn_eval(each.conv, each.norm)), cast(Any, _Folded())
    if isinstance(model.head, ConvHead):
        convs, norms = model.head.convs, model.head.norms
        for i in range(len(convs)):
            conv, norm = cast(nn.Conv2d, convs[i]), cast(MaskedBatchNorm, norms[i])
            convs[i], norms[i] = _ConvReLU(fuse_conv_bn_eval(conv, norm)), _Folded()
        model.direct = _Direct(model)
    return model


class _Direct:
    """The operations of a folded network with a convolutional head, without its modules.

    The calls of modules would take a fifth of the time of a single image.
    """

    def __init__(self, model: CRNN) -> None:
        self.columns = model._columns
        stages = cast("list[ConvStage]", model.stages)
        self.stages = [
            (
                _apply(stage),
                stage.pool,
                [_apply(each) for each in cast("list[ResidualConv]", stage.residuals)],
            )
            for stage in stages
        ]
        self.linear, self.norm, _ = cast("tuple[nn.Linear, nn.LayerNorm, nn.ReLU]", model.project)
        self.convs = [conv.apply_to for conv in cast("list[_ConvReLU]", cast(ConvHead, model.head).convs)]
        self.classify = model.classify

    def __call__(self, x: Tensor) -> Tensor | None:
        """Map images (N, 1, H, W) without padding to logits (N, T, C), to the bit as the modules.

        Return None if oneDNN cannot compute them in float32.
        """
        if torch.is_autocast_enabled("cpu") or x.dtype != torch.float32 or not _packs(x, x.dtype):
            return None
        for conv, pool, residuals in self.stages:
            x = pooled(conv(x), pool)
            for each in residuals:
                x = x + each(x)
        linear, norm, classify = self.linear, self.norm, self.classify
        frames = F.linear(self.columns(x), linear.weight, linear.bias)
        frames = F.layer_norm(frames, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        x = F.relu(frames, inplace=True).transpose(1, 2).unsqueeze(2)
        for conv in self.convs:
            x = x + conv(x)
        return F.linear(x.squeeze(2).transpose(1, 2), classify.weight, classify.bias)


def _apply(part: ConvStage | ResidualConv) -> Callable[[Tensor], Tensor]:
    return cast(_ConvReLU, part.conv).apply_to


class _Folded(nn.Module):
    """The place of a normalization and ReLU that are folded into the convolution before it."""

    def forward(self, x: Tensor, inside: Tensor | None = None) -> Tensor:
        return x


class _ConvReLU(nn.Conv2d):
    """Convolution and ReLU, on x86 by oneDNN.

    PyTorch chooses between kernels by the size of a batch and the number of threads. Here one kernel takes all
    batches, so rounding does not depend on threads. The weights are put into the order of the processor once.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(
            conv.in_channels, conv.out_channels, cast(Any, conv.kernel_size), cast(Any, conv.stride),
            cast(Any, conv.padding), cast(Any, conv.dilation), conv.groups, device="meta",
        )  # fmt: skip
        self.weight, self.bias = conv.weight, conv.bias
        self._packed: dict[torch.dtype, tuple[Any, ...]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_packed": {}}

    def forward(self, x: Tensor) -> Tensor:
        """Apply both to (N, C, H, W)."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        if not _packs(x, dtype):
            return F.relu(super().forward(x), inplace=True)
        return self.apply_to(x.to(dtype))

    def apply_to(self, x: Tensor) -> Tensor:
        """Apply both by oneDNN, in the type of the input."""
        packed = self._packed.get(x.dtype) or self._pack(x.dtype)
        y: Tensor = torch.ops.mkldnn._convolution_pointwise.default(x, *packed)
        return y

    def _pack(self, dtype: torch.dtype) -> tuple[Any, ...]:
        """Return and keep what the convolution takes after its input, the weights in the processor's order."""
        place = (self.padding, self.stride, self.dilation, self.groups)
        bias = None if self.bias is None else self.bias.detach().to(dtype)
        weight = torch.ops.mkldnn._reorder_convolution_weight(self.weight.detach().to(dtype), *place)
        packed: tuple[Any, ...] = (weight, bias, *place, "relu", [], "")
        self._packed[dtype] = packed
        return packed


def _packs(x: Tensor, dtype: torch.dtype) -> bool:
    """Return True if oneDNN computes the convolution of an input."""
    return (
        x.device.type == "cpu"
        and dtype in (torch.float32, torch.bfloat16)
        and not torch.is_grad_enabled()
        and _HAS_ONEDNN
        and bool(torch.backends.mkldnn.enabled)
    )


_HAS_ONEDNN = torch._C._has_mkldnn and platform.machine() in ("x86_64", "AMD64")
