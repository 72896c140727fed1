"""A training recipe: its settings, the presets, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from fastctc.crnn.data.augment import AugmentConfig
from fastctc.crnn.data.preprocess import PreprocessConfig
from fastctc.crnn.model.network import CRNNConfig
from fastctc.crnn.train.optimizers import OPTIMIZERS
from fastctc.text import Alphabet


@dataclass(frozen=True)
class TrainConfig:
    """A training recipe. Kept in the training state and in the checkpoint.

    Attributes:
        data: labelled images to train on, see :func:`fastctc.crnn.data.readers.open_source`; None: formulas are
            drawn.
        look, renderer, value: which formulas are drawn, see :class:`fastctc.crnn.formulas.drawing.FormulaSource`.
        contest_share: with look ``"mixed"``, how many of the images have the contest's look.
        glyph_variants: glyphs of each character that the faster renderer composes images of.
        glyph_fonts: fonts of these glyphs in the contest's look: ``"bundled"`` with what draws them, or also
            those of ``"packages"``, see :func:`~fastctc.crnn.formulas.fonts.find_fonts`, for a model of fonts
            it has not seen.
        glyph_varied: share of these glyphs that is shaped as fonts which are not at hand might have them.
        captcha_share: with renderer ``"mixed"``, how many of the images the ``captcha`` package draws; the
            others are composed of its glyphs, ten times faster, but a model that has seen few of the
            package's own reads them less well.
        images: how many images are drawn; None: what can be drawn in a fifth of ``minutes``.
        rounds: how many times, evenly over the run, the images are replaced by as many new ones.
        characters: the alphabet; None: of the formulas, or of all labels in ``data``.
        architecture: ``"conv"``, ``"bilstm"``, ``"bigru"`` or ``"vgg-bilstm"``, see
            :class:`fastctc.crnn.model.network.CRNNConfig`.
        channels, hidden: sizes of the network, see :class:`fastctc.crnn.model.network.CRNNConfig`; None: as usual.
        height: rows images are resized to; None: 64, or 32 for ``"vgg-bilstm"``.
        stem_stride: 2 halves the image in the first convolution, see ``CRNNConfig``;
            None: 2 from height 64 on, else 1; for ``"vgg-bilstm"`` always 1.
        pooled_columns: 2 doubles the frames, see :class:`~fastctc.crnn.model.network.CRNNConfig`; None: 2 with a
            ``stem_stride`` of 2, else 4.
        steps: training steps; None: what fits into ``minutes``.
        minutes: wall time for drawing and training together, turned into ``images`` and ``steps`` at the
            start.
        batch_size: images a step, of all processes together.
        parts: how many equal parts a batch is computed in, by one process or several, see
            :mod:`fastctc.crnn.train.step`: a multiple of the number of processes. None: one for each process, at
            least 2 if they come out even.
        buckets: batches in a window that is sorted by width, see :class:`fastctc.crnn.data.batches.BatchMaker`.
        optimizer: ``"adamw"``, or ``"muon"``, which needs half the steps, see
            :class:`fastctc.crnn.train.optimizers.MuonAdamW`.
        max_lr: peak of the one-cycle learning rate.
        warmup: share of the steps in which the rate rises.
        weight_decay, clip: of the optimizer, and the largest gradient norm.
        ema: the weights that are evaluated and kept are a moving average over the steps, of which each step
            keeps this share (0.999: an average over some thousand steps); 0: those of the last step.
        median, gaussian, equalize, binarize, opening, closing: filters of every image, in training and in
            reading, see :class:`fastctc.crnn.data.preprocess.PreprocessConfig`.
        shift, stretch, rotate, blur, contrast, noise: random changes of images in training, see
            :class:`fastctc.crnn.data.augment.AugmentConfig`.
        seed: decides images, weights, order, shifts and dropout.
        threads: of torch in this process; sums depend on it. None: torch's choice.
        precision: ``"bf16"`` (autocast), ``"fp32"``, or ``"auto"``: bf16 where the processor has it.
        device: ``"cpu"`` or ``"cuda"``.
        eval_images: unseen images that accuracy is measured on.
        eval_every, save_every, log_every: steps between evaluations, between saves, and between lines of the
            log.
    """

    data: str | None = None
    look: str = "contest"
    renderer: str = "mixed"
    value: str = "mixed"
    contest_share: float = 0.5
    glyph_variants: int = 400
    glyph_fonts: str = "bundled"
    glyph_varied: float = 0.0
    captcha_share: float = 0.4
    images: int | None = 20_000
    rounds: int = 1
    characters: str | None = None
    architecture: str = "conv"
    channels: int | None = None
    hidden: int | None = None
    height: int | None = None
    stem_stride: int | None = None
    pooled_columns: int | None = None
    steps: int | None = 2_000
    minutes: float | None = None
    batch_size: int = 64
    parts: int | None = None
    buckets: int = 32
    optimizer: str = "adamw"
    max_lr: float = 3e-3
    warmup: float = 0.15
    weight_decay: float = 1e-2
    clip: float = 5.0
    ema: float = 0.0
    median: int = 0
    gaussian: float = 0.0
    equalize: bool = False
    binarize: bool = False
    opening: int = 0
    closing: int = 0
    shift: float = 4
    stretch: float = 0.08
    rotate: float = 0.0
    blur: float = 0.0
    contrast: float = 0.0
    noise: float = 0.0
    seed: int = 0
    threads: int | None = None
    precision: str = "auto"
    device: str = "cpu"
    eval_images: int = 1_000
    eval_every: int = 500
    save_every: int = 250
    log_every: int = 25

    def __post_init__(self) -> None:
        for name in (
            "batch_size",
            "eval_images",
            "eval_every",
            "save_every",
            "log_every",
            "rounds",
            "buckets",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        for name in ("images", "steps", "minutes", "threads", "height"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} is {value}, expected more than 0")
        if self.parts is not None and (self.parts < 1 or self.batch_size % self.parts):
            raise ValueError(
                f"parts is {self.parts}, expected a divisor of batch_size, which is {self.batch_size}"
            )
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}, expected from 0 to less than 1")
        if self.precision not in ("auto", "bf16", "fp32"):
            raise ValueError(f"precision is {self.precision!r}, expected 'auto', 'bf16' or 'fp32'")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer is {self.optimizer!r}, expected one of {', '.join(OPTIMIZERS)}")
        if self.glyph_fonts not in ("bundled", "packages"):
            raise ValueError(f"glyph_fonts is {self.glyph_fonts!r}, expected 'bundled' or 'packages'")
        if not 0 <= self.contest_share <= 1:
            raise ValueError(f"contest_share is {self.contest_share}, expected 0 to 1")
        if self.minutes is None and (self.steps is None or (self.images is None and self.data is None)):
            raise ValueError("steps and images may be left open only with minutes")
        if self.data is not None and self.rounds > 1:
            raise ValueError(f"rounds is {self.rounds}, but only drawn images can be replaced by new ones")
        self.preprocess(), self.augment()  # check their settings

    def preprocess(self) -> PreprocessConfig:
        """What happens to every image."""
        return PreprocessConfig(
            height=self.height or PreprocessConfig.height, median=self.median, gaussian=self.gaussian,
            equalize=self.equalize, binarize=self.binarize, opening=self.opening, closing=self.closing,
        )  # fmt: skip

    def augment(self) -> AugmentConfig:
        """How images are changed at random in training."""
        return AugmentConfig(
            shift=self.shift, stretch=self.stretch, rotate=self.rotate, blur=self.blur,
            contrast=self.contrast, noise=self.noise,
        )  # fmt: skip


_SHIPPED = TrainConfig(
    look="mixed",
    contest_share=0.8,
    captcha_share=0.3,
    glyph_variants=2_000,
    images=100_000,
    rounds=3,
    optimizer="muon",
    steps=14_000,
    parts=1,
    threads=1,
    eval_images=4_000,
    eval_every=2_000,
    save_every=500,
)
PRESETS = {
    "quick": TrainConfig(look="contest", optimizer="muon", images=70_000, steps=None, minutes=8.0),
    "shipped": _SHIPPED,
    "wide": replace(
        _SHIPPED,
        glyph_variants=3_000,
        glyph_fonts="packages",
        glyph_varied=0.4,
        stretch=0.15,
        images=80_000,
        rounds=4,
        steps=16_000,
    ),
}


def recipe_from(saved: dict[str, Any]) -> TrainConfig:
    """The recipe of a saved state.

    Raises:
        ValueError: it has settings that are not known here.
    """
    unknown = sorted(set(saved) - {f.name for f in fields(TrainConfig)})
    if unknown:
        raise ValueError(f"the training state has settings this fastctc does not know: {', '.join(unknown)}")
    return TrainConfig(**saved)


def settled(config: TrainConfig, processes: int = 1) -> TrainConfig:
    """The recipe with everything that follows from the machine and from other settings filled in."""
    parts = config.parts or (processes if processes > 1 or config.batch_size % 2 else 2)
    paper = config.architecture == "vgg-bilstm"
    height = config.height or (32 if paper else 64)
    stem_stride = config.stem_stride or (2 if height >= 64 and not paper else 1)
    threads = config.threads or torch.get_num_threads()
    pooled_columns = config.pooled_columns or (2 if stem_stride == 2 else 4)
    return replace(
        config,
        height=height,
        stem_stride=stem_stride,
        pooled_columns=pooled_columns,
        parts=parts,
        threads=threads,
        precision=_precision(config),
    )


def _precision(config: TrainConfig) -> str:
    """Resolves ``"auto"``: bf16 pays only where the processor multiplies it."""
    if config.precision != "auto":
        return config.precision
    if torch.device(config.device).type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    checks = [
        getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    ]
    return "bf16" if any(check() for check in checks if check is not None) else "fp32"


def model_config(config: TrainConfig, alphabet: Alphabet) -> CRNNConfig:
    """The shape of the network that a settled recipe trains."""
    assert config.height is not None and config.stem_stride is not None, "settled() fills them in"
    num_classes = alphabet.num_classes
    shape = CRNNConfig.paper(num_classes) if config.architecture == "vgg-bilstm" else CRNNConfig(num_classes)
    return replace(
        shape,
        architecture=config.architecture,
        height=config.height,
        stem_stride=config.stem_stride,
        pooled_columns=config.pooled_columns or 4,
        channels=config.channels or shape.channels,
        hidden=config.hidden or shape.hidden,
    )
