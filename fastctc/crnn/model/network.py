"""The recognizer's network: an image of one line of text in, CTC log-probabilities out.

Images of a batch are padded on the right to one width. After every stage, the padding is set to zero again. A
convolution sees the same zeros beyond the edge of a single image. Neither padding nor the other images of a batch
change the result.

    images (N, 1, H, W) ── convolutions, pooling ──> (N, C, H', T) ── columns ──> (N, T, C·H')
                        ── linear ──> (N, T, hidden) ── head ──> (N, T, classes)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fastctc.convolution import Conv2d
from fastctc.crnn.model.masked_norm import MaskedBatchNorm, finished

ARCHITECTURES = ("conv", "bilstm", "bigru", "vgg-bilstm")


@dataclass(frozen=True)
class CRNNConfig:
    """Shape of a :class:`CRNN`. Stored in the checkpoint.

    Attributes:
        num_classes: classes, the blank included.
        architecture: a small stack of convolutions with a head that is ``"conv"``, convolutional, which
            trains fast on a CPU, ``"bilstm"`` or ``"bigru"``; or ``"vgg-bilstm"``, the network of the CRNN
            paper.
        height: rows of the input images, a multiple of 8 times ``stem_stride``, or of 16 for
            ``"vgg-bilstm"``.
        stem_stride: 1, or 2: the first convolution is 5x5 and halves the image (not for ``"vgg-bilstm"``).
            Reading small letters at twice the resolution costs little that way.
        pooled_columns: columns after the first convolution that become one frame: 4, or 2 (not for
            ``"vgg-bilstm"``), which reads lines of narrow characters much better at 1.5 times the cost.
        channels: channels of the first convolution; the others are multiples of it.
        hidden: features of a frame in the head (of a recurrent one: in each direction).
        residuals: residual 3x3 convolutions after each stage of the small network. They read distorted letters on
            busy grounds better; two double the cost.
        dropout: share of features dropped before the last layer in training.
    """

    num_classes: int
    architecture: str = "conv"
    height: int = 32
    stem_stride: int = 1
    pooled_columns: int = 4
    channels: int = 32
    hidden: int = 128
    dropout: float = 0.1
    residuals: int = 0

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"architecture is {self.architecture!r}, expected one of {', '.join(ARCHITECTURES)}"
            )
        if self.num_classes < 2:
            raise ValueError(
                f"num_classes is {self.num_classes}, expected at least 2: a character and the blank"
            )
        for name in ("channels", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        paper = self.architecture == "vgg-bilstm"
        if self.stem_stride not in (1, 2) or (self.stem_stride == 2 and paper):
            raise ValueError(f"stem_stride is {self.stem_stride}, expected 1{'' if paper else ' or 2'}")
        if self.pooled_columns not in (2, 4) or (self.pooled_columns == 2 and paper):
            raise ValueError(f"pooled_columns is {self.pooled_columns}, expected 4{'' if paper else ' or 2'}")
        if self.residuals < 0 or (self.residuals and paper):
            raise ValueError(f"residuals is {self.residuals}, expected {'0' if paper else 'at least 0'}")
        multiple = 16 if paper else 8 * self.stem_stride
        if self.height < multiple or self.height % multiple:
            raise ValueError(
                f"height is {self.height}, expected a multiple of {multiple} for {self.architecture!r}"
            )

    @classmethod
    def paper(cls, num_classes: int) -> CRNNConfig:
        """Return the sizes of the CRNN paper (Shi, Bai and Yao, 2015): 64 to 512 channels, 2 x BiLSTM(256)."""
        return cls(num_classes, "vgg-bilstm", channels=64, hidden=256, dropout=0.0)

    @property
    def columns_per_frame(self) -> int:
        """Return the number of image columns that become one frame."""
        return self.pooled_columns * self.stem_stride

    def frames(self, width: int) -> int:
        """Return the number of frames of an image of this width: width / columns_per_frame, rounded up."""
        return (width + self.columns_per_frame - 1) // self.columns_per_frame


def _divided(widths: Tensor, by: int) -> Tensor:
    """Return the widths after a layer that makes one column of ``by``, rounded up."""
    return torch.div(widths + by - 1, by, rounding_mode="floor")


class ResidualConv(nn.Module):
    """3x3 convolution, normalization and ReLU, added to the input (He and others, arXiv:1512.03385)."""

    def __init__(self, channels: int, **place: Any) -> None:
        super().__init__()
        self.conv: nn.Conv2d = Conv2d(channels, channels, 3, padding=1, bias=False, **place)
        self.norm = MaskedBatchNorm(channels, **place)

    def forward(self, x: Tensor, inside: Tensor | None) -> Tensor:
        """Map (N, C, H, W) to the same shape; ``inside`` is true in the columns that are not padding."""
        result: Tensor = self.norm(self.conv(x), inside, added=x)
        return result


class ConvStage(nn.Module):
    """Convolution, normalization, ReLU, padding zeroed, max-pooling by whole windows, residual convolutions."""

    def __init__(
        self, inputs: int, outputs: int, *, pool: tuple[int, int] = (1, 1), norm: bool = True,
        stride: int = 1, residuals: int = 0, **place: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        kernel = 2 * stride + 1
        self.conv: nn.Conv2d = Conv2d(
            inputs, outputs, kernel, stride, padding=kernel // 2, bias=not norm, **place
        )
        self.norm = MaskedBatchNorm(outputs, **place) if norm else None
        self.residuals = nn.ModuleList(ResidualConv(outputs, **place) for _ in range(residuals))
        self.stride, self.pool = stride, pool

    def forward(self, x: Tensor, widths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Map (N, C, H, W) and widths to (N, C', H / stride / pool, W / stride / pool) and the new widths."""
        x = self.conv(x)
        widths = None if widths is None else _divided(widths, self.stride)
        inside = _inside(x, widths)
        if self.norm is None:
            x = finished(F.relu(x, inplace=True), inside, self.pool, None)
        else:
            x = self.norm(x, inside, self.pool)
        widths = None if widths is None else _divided(widths, self.pool[1])
        inside = _inside(x, widths)
        for residual in self.residuals:
            x = residual(x, inside)
        return x, widths


def _inside(x: Tensor, widths: Tensor | None) -> Tensor | None:
    """Return (N, 1, 1, W) bool, true in the columns that are not padding; None without padding."""
    if widths is None:
        return None
    return (torch.arange(x.shape[3], device=x.device) < widths[:, None])[:, None, None, :]


def _with_whole_frames(images: Tensor, widths: Tensor) -> Tensor:
    """Return images (N, 1, H, W) whose last columns are repeated behind their widths.

    So a last frame that an image fills in part has no edge in it, which would look like a stroke.
    """
    place = (widths - 1)[:, None, None, None].expand(-1, -1, images.shape[2], -1)
    columns = torch.arange(images.shape[3], device=images.device)
    return torch.where(columns < widths[:, None, None, None], images, images.gather(3, place))


class ConvHead(nn.Module):
    """Residual dilated convolutions along the frames: context of 17 frames, no recurrence."""

    def __init__(self, hidden: int, dilations: tuple[int, ...] = (1, 2, 1), **place: Any) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            Conv2d(hidden, hidden, (1, 5), padding=(0, 2 * d), dilation=(1, d), bias=False, **place)
            for d in dilations
        )
        self.norms = nn.ModuleList(MaskedBatchNorm(hidden, **place) for _ in dilations)
        self.features = hidden

    def forward(self, frames: Tensor, lengths: Tensor | None) -> Tensor:
        """Map (N, T, hidden) to (N, T, hidden)."""
        x = frames.transpose(1, 2).unsqueeze(2)  # (N, hidden, 1, T)
        inside = _inside(x, lengths)
        if inside is not None:
            x = x * inside
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x), inside, added=x)
        return x.squeeze(2).transpose(1, 2)


class RecurrentHead(nn.Module):
    """Two bidirectional recurrent layers along the frames, ``nn.LSTM`` or ``nn.GRU``."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU], inputs: int, hidden: int, **place: Any) -> None:
        super().__init__()
        self.rnn = kind(inputs, hidden, num_layers=2, bidirectional=True, batch_first=True, **place)
        self.features = 2 * hidden

    def forward(self, frames: Tensor, lengths: Tensor | None) -> Tensor:
        """Map (N, T, inputs) to (N, T, 2 hidden)."""
        if lengths is None:
            result: Tensor = self.rnn(frames)[0]
            return result
        packed = pack_padded_sequence(frames, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=frames.shape[1])[0]


def _conv_stages(c: int, stem_stride: int, pooled_columns: int, **shared: Any) -> list[ConvStage]:
    """Return four convolutions: height / 8, width / pooled_columns, and both by the stem's stride."""
    wide = 4 * c if pooled_columns == 4 else 3 * c  # twice the columns with fewer channels
    return [
        ConvStage(1, c, pool=(2, 2), stride=stem_stride, **shared),
        ConvStage(c, 2 * c, pool=(2, pooled_columns // 2), **shared),
        ConvStage(2 * c, wide, pool=(2, 1), **shared),
        ConvStage(wide, 4 * c, **shared),
    ]


def _vgg_stages(c: int, **place: Any) -> list[ConvStage]:
    """Return the paper's table 1 without its last 2x2 convolution; it divides height by 16 and width by 4."""
    return [
        ConvStage(1, c, pool=(2, 2), norm=False, **place),
        ConvStage(c, 2 * c, pool=(2, 2), norm=False, **place),
        ConvStage(2 * c, 4 * c, norm=False, **place),
        ConvStage(4 * c, 4 * c, pool=(2, 1), norm=False, **place),
        ConvStage(4 * c, 8 * c, **place),
        ConvStage(8 * c, 8 * c, pool=(2, 1), **place),
    ]


class CRNN(nn.Module):
    """Convolutional network with a sequence head and CTC output, for images of any width.

    The default architecture has 555,000 parameters at 17 classes. ``"vgg-bilstm"`` follows Shi, Bai and
    Yao, An End-to-End Trainable Neural Network for Image-based Sequence Recognition, arXiv:1507.05717, except
    that pooling keeps the frames at ceil(W/4) and the last convolution sees one zero column on the right.

    Args:
        config: its shape.
        device: of its parameters, as for every module of torch; None: the default device.
        dtype: of its parameters; None: the default dtype.

    Example:
        >>> model = CRNN(CRNNConfig(num_classes=17)).eval()
        >>> log_probs, lengths = model(torch.zeros(2, 1, 32, 96), torch.tensor([96, 50]))
        >>> log_probs.shape, lengths
        (torch.Size([2, 24, 17]), tensor([24, 13]))
    """

    direct: Callable[[Tensor, list[int]], Tensor | None] | None = None
    """Logits of images of some widths by a faster way than the modules, or None; set by ``folded``."""

    def __init__(
        self,
        config: CRNNConfig,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        c, hidden = config.channels, config.hidden
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        self.head: ConvHead | RecurrentHead
        if config.architecture != "vgg-bilstm":
            self.stages = nn.ModuleList(
                _conv_stages(
                    c, config.stem_stride, config.pooled_columns, residuals=config.residuals, **place
                )
            )
            self.project = nn.Sequential(
                nn.Linear(4 * c * (config.height // 8 // config.stem_stride), hidden, **place),
                nn.LayerNorm(hidden, **place),
                nn.ReLU(inplace=True),
            )
            if config.architecture == "conv":
                self.head = ConvHead(hidden, **place)
            else:
                kind = nn.LSTM if config.architecture == "bilstm" else nn.GRU
                self.head = RecurrentHead(kind, hidden, hidden, **place)
        else:
            self.stages = nn.ModuleList(_vgg_stages(c, **place))
            rows = config.height // 16
            self.project = nn.Sequential(nn.Linear(8 * c * rows * 2, 8 * c, **place), nn.ReLU(inplace=True))
            self.head = RecurrentHead(nn.LSTM, 8 * c, hidden, **place)
        self.dropout = nn.Dropout(config.dropout)
        self.classify = nn.Linear(self.head.features, config.num_classes, **place)

    def forward(self, images: Tensor, widths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return log-probabilities of the classes at each frame.

        Args:
            images: (N, 1, H, W) float, normalized; H as in the configuration, any W.
            widths: (N,) int64, columns of each image that are not padding; None: all of them.

        Returns:
            log_probs (N, T, C) float32 with T = config.frames(W), and lengths (N,) int64. Frames beyond an
            image's length carry no meaning.
        """
        logits, lengths = self.logits(images, widths)
        return logits.log_softmax(-1), lengths

    def logits(self, images: Tensor, widths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the output of ``forward`` without the softmax, for a loss that takes logits."""
        self._check(images, widths)
        n, _, _, width = images.shape
        step, frames_of_all = self.config.columns_per_frame, self.config.frames(width)
        full = frames_of_all * step
        lengths, remaining = torch.full((n,), frames_of_all, device=images.device), None
        if widths is not None or full > width:
            if widths is None:
                widths = torch.full((n,), width, device=images.device)
            images = _with_whole_frames(F.pad(images, (0, full - width)), widths)
            lengths = _divided(widths, step)
            if torch.compiler.is_exporting() or bool((lengths < frames_of_all).any()):
                remaining = lengths * step  # exported without a branch
        padded, inside = remaining is not None, _inside(images, remaining)
        x = images if inside is None else images * inside
        if self.direct is not None:
            logits = self.direct(x, [full] * n if remaining is None else remaining.tolist())
            if logits is not None:
                return logits.float(), lengths
        for stage in self.stages:
            x, remaining = stage(x, remaining)
        frames = self.project(self._columns(x))
        frames = self.head(frames, lengths if padded else None)
        return self.classify(self.dropout(frames)).float(), lengths

    def _columns(self, x: Tensor) -> Tensor:
        """Map (N, C, H', T) to (N, T, features): each column of the feature map becomes a frame."""
        if self.config.architecture == "vgg-bilstm":
            # The paper's last layer, a 2x2 convolution over two rows, as a linear map of column t and t + 1.
            x = torch.cat([x, F.pad(x, (0, 1))[..., 1:]], dim=1)  # (N, 2C, H', T)
        return x.permute(0, 3, 2, 1).flatten(2)  # rows before channels: a view when memory is channels-last

    def _check(self, images: Tensor, widths: Tensor | None) -> None:
        if images.dim() != 4 or images.shape[1] != 1 or images.shape[2] != self.config.height:
            raise ValueError(
                f"images has shape {tuple(images.shape)}, expected (N, 1, {self.config.height}, W)"
            )
        if images.shape[3] < 1:
            raise ValueError("images has width 0, expected at least one column")
        if widths is None:
            return
        if widths.shape != images.shape[:1] or widths.is_floating_point():
            raise ValueError(
                f"widths is {widths.dtype} {tuple(widths.shape)}, expected integers ({images.shape[0]},)"
            )
        if torch.compiler.is_exporting():
            return  # values are not known
        if widths.numel() and (int(widths.min()) < 1 or int(widths.max()) > images.shape[3]):
            raise ValueError(
                f"widths has {int(widths.min())} to {int(widths.max())}, expected 1 to {images.shape[3]}"
            )
