"""Training the recognizer as fastctc does, against a plain network of the same layers on torch's loss.

Three ways to train on drawn formulas, each with the same layers, optimizer and batch size:

    fastctc     fastctc's network and loss; images drawn beforehand, most of them composed of a bank of glyphs
    beforehand  torch's layers and loss; as many images drawn beforehand, all by the captcha package's
                ``generate_image``
    on the fly  torch's layers and loss; a new image of the captcha package for every sample, by a DataLoader with
                workers, which share the processor with the model: what they take of it shows in the model's time

The plain network has torch's convolutions, normalization and pooling, and no mask of the padding. Each side
trains in the precision that is fastest for it on this processor; ``--fp32`` chooses float32 for both.

Checked first, in float32: both networks agree on images without padding, and both losses agree on the batch, as do
the gradients of all weights of the network. Rates are images trained on per second of everything, drawing included,
and the split shows where the time goes.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import report
from fastctc import ctc_loss
from fastctc.crnn import CRNN, AugmentConfig, CRNNConfig, FormulaDraw, FormulaSource, PreprocessConfig
from fastctc.crnn.data import (
    Batch,
    BatchMaker,
    Samples,
    Source,
    collect,
    default_workers,
    normalize,
    prepare,
)
from fastctc.crnn.formulas import CHARACTERS
from fastctc.crnn.training import fast_precision
from fastctc.text import Alphabet

EXAMPLES = """examples:
  python benchmarks/bench_training.py --quick                     does it run?
  python benchmarks/bench_training.py --out benchmarks/results    on all cores of this machine
"""
ALPHABET = Alphabet(CHARACTERS)
PREPROCESS = PreprocessConfig(height=64)
CAPTCHA = FormulaSource(look="default", renderer="captcha", gray=True)  # what the package draws of itself
BATCH = 64
PASSES = 2.5  # how often a drawn image is trained on: 70,000 images in 2,700 steps, as `fastctc demo` does
Loss = Callable[..., Tensor]


def torch_loss(logits: Tensor, *arguments: Tensor, blank: int) -> Tensor:
    return nn.functional.ctc_loss(logits.log_softmax(-1), *arguments, blank=blank, zero_infinity=True)


LOSSES: dict[str, Loss] = {
    "fastctc": partial(ctc_loss, from_logits=True, zero_infinity=True),
    "torch": torch_loss,
}


class Plain(nn.Module):
    """The layers and weights of a network with a convolutional head, as one would write them in PyTorch."""

    def __init__(self, model: CRNN) -> None:
        super().__init__()
        stages, head = cast("list[Any]", model.stages), cast(Any, model.head)
        self.stages = nn.Sequential(
            *(nn.Sequential(*normalized(each.conv), nn.MaxPool2d(each.pool)) for each in stages)
        )
        self.project, self.dropout, self.classify = model.project, model.dropout, model.classify
        self.head = nn.ModuleList(nn.Sequential(*normalized(each)) for each in head.convs)

    def logits(self, images: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, 1, H, W) and widths to logits (N, T, C), and frames."""
        x = self.stages(images).permute(0, 3, 2, 1).flatten(2)
        x = self.project(x).transpose(1, 2).unsqueeze(2)
        for layer in self.head:
            x = x + layer(x)
        logits = self.classify(self.dropout(x.squeeze(2).transpose(1, 2)))
        return logits.float(), (widths * logits.shape[1]) // images.shape[3]


def normalized(conv: nn.Conv2d) -> list[nn.Module]:
    """Return PyTorch's own convolution with the weights of another one, its normalization and ReLU."""
    own = nn.Conv2d(
        conv.in_channels, conv.out_channels, cast(Any, conv.kernel_size), cast(Any, conv.stride),
        cast(Any, conv.padding), cast(Any, conv.dilation), bias=False,
    )  # fmt: skip
    own.load_state_dict(conv.state_dict())
    return [own, nn.BatchNorm2d(conv.out_channels), nn.ReLU(inplace=True)]


class Trainer:
    """The network of fastctc or a plain one, with its optimizer and loss."""

    def __init__(self, loss: Loss, *, bf16: bool, plain: bool) -> None:
        torch.manual_seed(0)
        config = CRNNConfig(ALPHABET.num_classes, height=64, stem_stride=2, pooled_columns=2)
        model = CRNN(config)
        self.model = (Plain(model) if plain else model).train()
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.loss, self.bf16 = loss, bf16

    def gradients(self, batch: Batch) -> float:
        """Compute the gradients of all weights; return the loss."""
        images = normalize(batch.images, batch.widths, PREPROCESS)
        torch.manual_seed(1)  # of dropout
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            logits, lengths = self.model.logits(
                images.contiguous(memory_format=torch.channels_last), batch.widths
            )
        targets = batch.targets, lengths, batch.target_lengths
        loss = self.loss(logits.transpose(0, 1), *targets, blank=ALPHABET.blank)
        self.optimizer.zero_grad()
        loss.backward()
        return loss.item()

    def step(self, batch: Batch) -> float:
        loss = self.gradients(batch)
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        return loss


class Endless(Dataset[tuple[Any, str]]):
    """A new picture of the captcha package at every index."""

    def __init__(self, source: FormulaSource, count: int) -> None:
        self.source, self.count = source, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Any, str]:
        image, text = self.source(index)
        return prepare(image, PREPROCESS).pixels, text


def as_batch(items: list[tuple[Any, str]]) -> Batch:
    samples = Samples([image for image, _ in items], [text for _, text in items], [""] * len(items))
    return BatchMaker(samples, ALPHABET, len(items)).batch(0)


def check(batch: Batch) -> None:
    """Check that both networks are the same, and both losses give the same gradients, in float32."""
    images = torch.randn(2, 1, 64, 128).contiguous(memory_format=torch.channels_last)
    widths = torch.tensor([128, 128])
    models = [Trainer(LOSSES["torch"], bf16=False, plain=plain).model for plain in (False, True)]
    for model in models:
        cast(nn.Dropout, model.dropout).p = 0.0
    (one, frames), (other, same) = (cast(Any, model).logits(images, widths) for model in models)
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert torch.equal(frames, same)
    ours, theirs = (Trainer(loss, bf16=False, plain=False) for loss in LOSSES.values())
    a, b = ours.gradients(batch), theirs.gradients(batch)
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    for (name, p), q in zip(ours.model.named_parameters(), theirs.model.parameters(), strict=True):
        assert p.grad is not None and q.grad is not None, name
        difference = (p.grad - q.grad).norm() / q.grad.norm().clamp_min(1e-6)
        assert difference < 1e-2, f"gradients of {name} differ by {float(difference):.1e}"


def drawing_rate(source: Source, count: int, workers: int) -> tuple[float, Samples]:
    """Return images drawn and preprocessed per second, without the start of workers and the bank of glyphs."""
    began, first = 0.0, 0

    def progress(done: int) -> None:
        nonlocal began, first
        if not began:
            began, first = time.perf_counter(), done

    samples, _ = collect(source, range(count), PREPROCESS, workers=workers, on_progress=progress)
    return (count - first) / (time.perf_counter() - began), samples


def precisions(fp32: bool) -> dict[str, bool]:
    """Return whether each side trains in bf16, which pays for torch's layers on more processors."""
    architectures = {"fastctc": "conv", "torch": "vgg-bilstm"}
    return {side: not fp32 and fast_precision("cpu", each) == "bf16" for side, each in architectures.items()}


def step_seconds(batches: list[Batch], bf16: dict[str, bool], rounds: int) -> dict[str, float]:
    """Return the median time of a step of each side, taking turns."""
    trainers = {side: Trainer(loss, bf16=bf16[side], plain=side == "torch") for side, loss in LOSSES.items()}
    times: dict[str, list[float]] = {name: [] for name in trainers}
    for turn in range(rounds + 2):
        for name, trainer in trainers.items():
            began = time.perf_counter()
            trainer.step(batches[turn % len(batches)])
            if turn >= 2:
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(each) for name, each in times.items()}


def on_the_fly(steps: int, workers: int, bf16: bool) -> tuple[float, float]:
    """Return seconds per step, and the part of them in which the model waits for images."""
    loader = DataLoader(
        Endless(CAPTCHA, (steps + 8) * BATCH),
        BATCH,
        num_workers=workers,
        collate_fn=as_batch,
        prefetch_factor=4,
    )
    trainer = Trainer(torch_loss, bf16=bf16, plain=True)
    images: Iterator[Batch] = iter(loader)
    for _ in range(8):
        trainer.step(next(images))
    began, waited = time.perf_counter(), 0.0
    for _ in range(steps):
        ready = time.perf_counter()
        batch = next(images)
        waited += time.perf_counter() - ready
        trainer.step(batch)
    return (time.perf_counter() - began) / steps, waited / steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few images and steps")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")
    parser.add_argument("--fp32", action="store_true", help="float32 for both sides")
    parser.add_argument("--out", type=Path, help="folder for the result, a .json and a .md file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bf16 = precisions(arguments.fp32)
    workers = max(1, default_workers())
    count, rounds = (256, 3) if arguments.quick else (8_000, 30)

    mixed_rate, samples = drawing_rate(FormulaDraw().source(0), count, workers)
    captcha_rate, _ = drawing_rate(CAPTCHA, count // 2, workers)
    maker = BatchMaker(samples, ALPHABET, BATCH, augment=AugmentConfig())
    began = time.perf_counter()
    batches = [maker.batch(i) for i in range(8)]
    batch_seconds = (time.perf_counter() - began) / len(batches)
    check(batches[0])
    steps = step_seconds(batches, bf16, rounds)
    fly_step, fly_wait = on_the_fly(rounds, workers, bf16["torch"])

    drawing = {"fastctc": BATCH / mixed_rate / PASSES, "beforehand": BATCH / captcha_rate / PASSES}
    rows = [
        {
            "way": way,
            "drawing_ms": 1e3 * drawing[way],
            "batching_ms": 1e3 * batch_seconds,
            "model_ms": 1e3 * s,
        }
        for way, s in (("fastctc", steps["fastctc"]), ("beforehand", steps["torch"]))
    ]
    rows.append(
        {
            "way": "on the fly", "drawing_ms": 0.0,
            "batching_ms": 1e3 * fly_wait, "model_ms": 1e3 * (fly_step - fly_wait),
        }
    )  # fmt: skip
    for row in rows:
        total = row["drawing_ms"] + row["batching_ms"] + row["model_ms"]
        row |= {"images_per_second": 1e3 * BATCH / total, "data_share": (total - row["model_ms"]) / total}
    result = {
        "benchmark": "training", "date": str(datetime.date.today()), "quick": arguments.quick,
        "versions": report.describe_versions(), "machine": report.describe_machine(torch.device("cpu")),
        "threads": arguments.threads, "workers": workers, "bf16": bf16, "batch": BATCH, "passes": PASSES,
        "drawn_per_second": {"mixed": mixed_rate, "captcha": captcha_rate}, "rows": rows,
    }  # fmt: skip
    text = table(result)
    print(text)
    if arguments.out:
        print(report.write(arguments.out, result, text))


def table(result: dict[str, Any]) -> str:
    ours = result["rows"][0]["images_per_second"]
    precision = ", ".join(f"{side} in {'bf16' if bf16 else 'fp32'}" for side, bf16 in result["bf16"].items())
    lines = [
        f"Training, {result['threads']} threads, {result['workers']} workers, batches of {result['batch']},"
        f" {precision}, {result['machine']['cpu']}.",
        f"Drawn per second, before training: fastctc {result['drawn_per_second']['mixed']:.0f} images, the captcha"
        f" package {result['drawn_per_second']['captcha']:.0f}; each is trained on {result['passes']} times.",
        "",
        "| | drawing, ms a step | waiting for a batch | model, loss and update | images per second | fastctc is |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        lines.append(
            f"| {row['way']} | {row['drawing_ms']:.1f} | {row['batching_ms']:.1f} | {row['model_ms']:.1f} |"
            f" {row['images_per_second']:.0f} | {ours / row['images_per_second']:.2f} times as fast |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
