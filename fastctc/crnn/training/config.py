"""A training recipe: its settings, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, cast

import torch

from fastctc.crnn.data import (
    AugmentConfig,
    DrawConfig,
    LabelConfig,
    PreprocessConfig,
    at_least,
    between,
    check_settings,
    draw_from_dict,
    draw_to_dict,
    more_than,
    setting,
)
from fastctc.crnn.model import CRNNConfig
from fastctc.text import Alphabet


@dataclass(frozen=True)
class ModelConfig:
    """The network that is trained. What is None follows from the rest, see :func:`settled`.

    Attributes:
        architecture: head of the small network: convolutional, BiLSTM or BiGRU; or the CRNN paper's network.
            None: conv.
        channels: channels of the first convolution. None: 32, or 64 for ``"vgg-bilstm"``.
        hidden: features of a frame in the head. None: 128, or 256 for ``"vgg-bilstm"``.
        stem_stride: 2 halves the image in the first convolution. None: 2 from height 64 on, else 1; for
            ``"vgg-bilstm"`` always 1.
        pooled_columns: columns after the first convolution that become one frame, 2 or 4. None: 2 with a
            ``stem_stride`` of 2, else 4.
        residuals: residual convolutions after each stage of the small network. None: none.
    """

    architecture: Literal["conv", "bilstm", "bigru", "vgg-bilstm"] | None = setting(None)
    channels: int | None = setting(None, metavar="N", **at_least(1))
    hidden: int | None = setting(None, metavar="N", **at_least(1))
    stem_stride: int | None = setting(None, metavar="N")
    pooled_columns: int | None = setting(None, metavar="N")
    residuals: int | None = setting(None, metavar="N", **at_least(0))

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class OptimizerConfig:
    """What turns gradients into steps.

    Attributes:
        name: the optimizer; muon needs half the steps of adamw, see :class:`fastctc.crnn.training.MuonAdamW`.
        max_lr: peak of the one-cycle learning rate. None: 0.003, or 0.001 for a run that starts from a checkpoint.
        warmup: share of the steps in which the rate rises.
        weight_decay: decay of matrices and kernels.
        clip: largest norm of the gradient.
        ema: share that a step keeps of a moving average of the weights, which is what is evaluated and kept:
            0.999 averages over some thousand steps. 0: the weights of the last step are kept.
        label_smoothing: weight of the divergence of each frame from the uniform distribution, against 1 minus it
            for the loss of CTC. It lowers the confidence of wrong texts. See
            ``fastctc.crnn.training.step.uniform_divergence``.
    """

    name: Literal["adamw", "muon"] = setting("adamw", option="optimizer")
    max_lr: float | None = setting(None, metavar="RATE", **more_than(0))
    warmup: float = setting(
        0.15, lambda value: 0 <= value < 1, "a share from 0 to less than 1", metavar="SHARE"
    )
    weight_decay: float = setting(1e-2, **at_least(0))
    clip: float = setting(5.0, **more_than(0))
    ema: float = setting(0.0, lambda value: 0 <= value < 1, "from 0 to less than 1", metavar="SHARE")
    label_smoothing: float = setting(
        0.0, lambda value: 0 <= value < 1, "from 0 to less than 1", metavar="WEIGHT"
    )

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class ScheduleConfig:
    """How long is trained, in what portions, and what happens every few steps.

    Attributes:
        steps: training steps. None: as many as fit into ``minutes``, or without them, as many as follow from the
            number of labeled images.
        minutes: wall time for drawing and training together. As the speed of the machine changes, the number of
            steps is planned anew.
        batch_size: images of a step, of all processes together.
        parts: equal parts a batch is computed in, a multiple of the number of processes. None: one for each
            process, at least 2 if they come out even. See :mod:`fastctc.crnn.training.step`.
        buckets: batches in a window that is sorted by width, so that batches have little padding. See
            :class:`fastctc.crnn.data.BatchMaker`.
        eval_images: unseen images that accuracy is measured on, at most.
        eval_every: steps between evaluations.
        patience: evaluations without an improvement after which the run stops; its result then is the best
            checkpoint, not the last. None: the run never stops early.
        save_every: steps between saves of the state and of the checkpoint.
        log_every: steps between lines of log.jsonl.
    """

    steps: int | None = setting(2_000, metavar="N", **more_than(0))
    minutes: float | None = setting(None, metavar="MINUTES", **more_than(0))
    batch_size: int = setting(64, metavar="N", **at_least(1))
    parts: int | None = setting(None, metavar="N")
    buckets: int = setting(32, metavar="N", **at_least(1))
    eval_images: int = setting(1_000, metavar="N", **at_least(1))
    eval_every: int = setting(500, metavar="STEPS", **at_least(1))
    patience: int | None = setting(None, metavar="N", **at_least(1))
    save_every: int = setting(250, metavar="STEPS", **at_least(1))
    log_every: int = setting(25, metavar="STEPS", **at_least(1))

    def __post_init__(self) -> None:
        check_settings(self)
        if self.parts is not None and (self.parts < 1 or self.batch_size % self.parts):
            raise ValueError(
                f"parts is {self.parts}, expected a divisor of batch_size, which is {self.batch_size}"
            )


@dataclass(frozen=True)
class TrainConfig:
    """A training recipe. Kept in the training state and in the checkpoint.

    Attributes:
        data: folder of labeled images to train on, see :func:`fastctc.crnn.open_source`. None: images are drawn.
        val: folder of labeled images that accuracy is measured on. None: a part of ``data``, or drawn images.
        draw: how images are drawn, without ``data``.
        characters: the alphabet (default: all characters that are drawn, or of all labels).
        labels: how the texts of ``data`` are read.
        preprocess: what happens to every image, in training and in reading.
        augment: how training images are changed at random.
        model: the network.
        optimizer: learning rate, decay, averaging.
        schedule: steps or minutes, batches, evaluation.
        seed: decides everything random: images, weights, order, augmentation, dropout.
        threads: threads of torch in each process; sums depend on it. None: torch's choice.
        precision: bf16 (autocast), fp32, or auto: the one that is faster on the device.
        device: cpu or cuda.
        min_usable: smallest share of the samples that can be read and learned; with fewer the run does not start.
        start_from: checkpoint whose weights the run starts from, for fine-tuning: a file, or a name such as
            ``"formula"``. Its network is used, and its preprocessing if ``preprocess`` is left at the default.
            The alphabet is the checkpoint's, followed by the characters it lacks. None: random weights.
    """

    data: str | None = setting(None, metavar="DIR")
    val: str | None = setting(None, metavar="DIR")
    draw: DrawConfig | None = None
    characters: str | None = setting(None)
    labels: LabelConfig = field(default_factory=LabelConfig)
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    seed: int = setting(0, metavar="N", **at_least(0))
    threads: int | None = setting(None, metavar="N", **at_least(1))
    precision: Literal["auto", "bf16", "fp32"] = setting("auto")
    device: str = setting("cpu")
    min_usable: float = setting(0.5, metavar="SHARE", **between(0, 1))
    start_from: str | None = setting(None, metavar="CHECKPOINT", option="from")

    def __post_init__(self) -> None:
        check_settings(self)
        if (self.data is None) == (self.draw is None):
            raise ValueError(
                f"data is {self.data!r} and draw is {self.draw!r}, expected one of them: a folder of images, or"
                " how they are drawn"
            )
        if self.data is None and self.schedule.steps is None and self.schedule.minutes is None:
            raise ValueError("steps may be left open only with minutes or data")
        if self.draw is not None and self.draw.images is None and self.schedule.minutes is None:
            raise ValueError("images may be left open only with minutes")


GROUPS: dict[str, type] = {
    "labels": LabelConfig,
    "preprocess": PreprocessConfig,
    "augment": AugmentConfig,
    "model": ModelConfig,
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
}
"""The parts of a recipe that have the same settings whatever is trained on."""


def config_to_dict(config: TrainConfig) -> dict[str, Any]:
    """Return a recipe as it is saved: dictionaries, numbers and texts."""
    saved = asdict(config)
    saved["draw"] = None if config.draw is None else draw_to_dict(config.draw)
    return saved


def config_from_dict(saved: Mapping[str, Any]) -> TrainConfig:
    """Return the recipe of a saved state.

    Raises:
        ValueError: it has settings that are not known here.
    """
    saved = dict(saved) if "schedule" in saved else _nested(saved)
    draw = saved.pop("draw", None)
    parts = {name: _made(kind, saved.pop(name)) for name, kind in GROUPS.items() if name in saved}
    drawn = None if draw is None else draw_from_dict(draw)
    return cast(TrainConfig, _made(TrainConfig, saved | parts | {"draw": drawn}))


def _made(kind: type, settings: Mapping[str, Any]) -> Any:
    unknown = sorted(settings.keys() - {each.name for each in fields(kind)})
    if unknown:
        raise ValueError(f"settings that this version of fastctc lacks: {', '.join(unknown)}")
    return kind(**settings)


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe saved by fastctc 0.1, which had all settings in one row and drew formulas alone."""
    rest = dict(flat)
    rest["name"] = rest.pop("optimizer", "adamw")
    nested: dict[str, Any] = {
        group: {each.name: rest.pop(each.name) for each in fields(kind) if each.name in rest}
        for group, kind in GROUPS.items()
    }
    for each in fields(TrainConfig):
        if each.name in rest:
            nested[each.name] = rest.pop(each.name)
    draw = draw_from_dict({"domain": "formulas", **rest})
    nested["draw"] = None if nested.get("data") is not None else draw_to_dict(draw)
    return nested


def settled(config: TrainConfig, processes: int = 1) -> TrainConfig:
    """Return the recipe with everything filled in that follows from the machine and from other settings."""
    model, schedule = config.model, config.schedule
    paper = model.architecture == "vgg-bilstm"
    height = config.preprocess.height or (32 if paper else 64)
    stem_stride = model.stem_stride or (2 if height >= 64 and not paper else 1)
    shape = CRNNConfig.paper(2) if paper else CRNNConfig(2)
    return replace(
        config,
        preprocess=replace(config.preprocess, height=height),
        model=replace(
            model,
            architecture=model.architecture or "conv",
            channels=model.channels or shape.channels,
            hidden=model.hidden or shape.hidden,
            stem_stride=stem_stride,
            pooled_columns=model.pooled_columns or (2 if stem_stride == 2 else 4),
            residuals=model.residuals or 0,
        ),
        optimizer=replace(config.optimizer, max_lr=max_rate(config)),
        schedule=replace(
            schedule, parts=schedule.parts or (processes if processes > 1 or schedule.batch_size % 2 else 2)
        ),
        threads=config.threads or torch.get_num_threads(),
        precision=_precision(config),
    )


def max_rate(config: TrainConfig) -> float:
    """Return the peak of the learning rate, lower for weights that are trained already."""
    return config.optimizer.max_lr or (3e-3 if config.start_from is None else 1e-3)


def _precision(config: TrainConfig) -> Literal["auto", "bf16", "fp32"]:
    """Return the precision that a recipe asks for, with ``"auto"`` decided."""
    if config.precision != "auto":
        return config.precision
    return fast_precision(config.device, config.model.architecture or "conv")


def fast_precision(device: str, architecture: str = "conv") -> Literal["bf16", "fp32"]:
    """Return the fastest precision of training.

    On a CPU, bf16 pays where the processor multiplies matrices of it (AMX). Where it multiplies vectors of it, bf16
    pays with ``"vgg-bilstm"`` alone: the package has kernels in fp32 for the convolutions of the others.

    Args:
        device: a device of torch, such as ``"cpu"``.
        architecture: of the network, one of ``ARCHITECTURES``.
    """
    if torch.device(device).type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    names = ["_is_amx_tile_supported"] + ["_is_avx512_bf16_supported"] * (architecture == "vgg-bilstm")
    checks = [getattr(torch.cpu, name, None) for name in names]
    return "bf16" if any(check() for check in checks if check is not None) else "fp32"


def model_config(config: TrainConfig, alphabet: Alphabet) -> CRNNConfig:
    """Return the shape of the network that a recipe trains."""
    config = settled(config)
    paper = config.model.architecture == "vgg-bilstm"
    shape = CRNNConfig.paper(alphabet.num_classes) if paper else CRNNConfig(alphabet.num_classes)
    return replace(shape, height=config.preprocess.rows, **asdict(config.model))
