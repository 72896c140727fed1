"""Recognize strings of spoken digits with a CLDNN, and leave out each of its parts.

A CLDNN passes a spectrogram through convolutions (C), LSTMs (L) and fully connected layers (D). Here CTC trains it
on strings of digits, without the time of any digit. The score is the digit error rate, edits per digit, for voices
that are not in the training data. Synthesizers speak the digits (synthesize_digits.py).

Source: Sainath, Vinyals, Senior and Sak, Convolutional, Long Short-Term Memory, Fully Connected Deep Neural
Networks, ICASSP 2015.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from experiment import make_parser, print_table, save, train
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from fastctc import Alphabet, ctc_loss, forced_align, greedy_decode, merge_tokens
from fastctc.crnn.read import edit_distance
from fastctc.plot import plot_alignment
from fastctc.text import character_spans

DATA = Path(__file__).with_name("spoken_digits.npz")
SECONDS = 0.0125  # of a frame of the data
ALPHABET = Alphabet("0123456789")
PARTS = ("CLD", "LD", "CD", "CL")  # of the networks: all parts, and all but one
SUBSAMPLE = 4  # frames of the data per frame of the network


@dataclass(frozen=True)
class Size:
    """The size of an experiment."""

    steps: int = 250
    batch: int = 24
    tests: int = 200  # strings of each voice that is held out
    hidden: int = 64


FULL = Size(steps=1000, tests=500)

parser = make_parser(__file__, __doc__, "--full --out runs/digits", "--steps 100 --out runs/short")
parser.add_argument("--steps", type=int, metavar="N", help=f"of training (default: {Size.steps})")
parser.add_argument(
    "--parts",
    nargs="+",
    metavar="CLD",
    choices=PARTS,
    default=list(PARTS),
    help="what to train (default: %(default)s)",
)


class Speech:
    """The spoken words of the data.

    Attributes:
        words: by voice and digit, each a list of (T, bands) float32, from 0 to 1.
        held_out: voices that are not for training.
    """

    def __init__(self, path: Path) -> None:
        with np.load(path) as data:
            frames = torch.from_numpy(data["frames"]).float() / 255
            spoken = frames.split(data["lengths"].tolist())
            self.held_out = data["held_out"].tolist()
            self.words: dict[str, list[list[Tensor]]] = {}
            for voice, digit, word in zip(
                data["voices"].tolist(), data["digits"].tolist(), spoken, strict=True
            ):
                self.words.setdefault(voice, [[] for _ in range(10)])[digit].append(word)

    def utter(self, voice: str, digits: str, rng: np.random.Generator, *, changed: bool) -> Tensor:
        """Return the spectrogram of a string, (T, bands): words with pauses between them, and noise.

        Args:
            voice: the voice.
            digits: the string.
            rng: random numbers.
            changed: whether tempo and pitch are changed at random, to train.
        """
        bands = self.words[voice][0][0].shape[1]
        parts = []
        for digit in digits:
            takes = self.words[voice][int(digit)]
            word = takes[rng.integers(len(takes))]
            parts += [torch.zeros(int(rng.integers(1, 9)), bands), word * rng.uniform(0.85, 1.0)]
        speech = torch.cat([*parts, torch.zeros(int(rng.integers(1, 9)), bands)])
        if changed:
            speech = _resized(speech, rng.uniform(0.85, 1.15), rng.uniform(0.88, 1.12))
        noise = torch.from_numpy(rng.gumbel(rng.uniform(0.0, 0.25), 0.04, speech.shape)).float()
        return torch.maximum(speech, noise)  # the louder of two sounds, in a spectrogram of logarithms


def _resized(speech: Tensor, tempo: float, pitch: float) -> Tensor:
    """Return (T, bands) with another number of frames, and with its bands moved by a factor."""
    frames, bands = speech.shape
    time = torch.linspace(-1, 1, max(1, round(frames / tempo)))
    band = torch.linspace(0, 2, bands) * pitch - 1
    places = torch.stack(torch.meshgrid(time, band, indexing="ij")[::-1], dim=2)
    return nn.functional.grid_sample(speech[None, None], places[None], align_corners=True)[0, 0]


class CLDNN(nn.Module):
    """The network, or what is left of it.

    Args:
        bands: of the spectrogram.
        hidden: features of each direction of the LSTMs.
        parts: of the letters C, L and D.
    """

    def __init__(self, bands: int, hidden: int, parts: str = "CLD") -> None:
        super().__init__()
        self.parts = parts
        channels = 24
        self.convolve = nn.Sequential(
            nn.Conv2d(1, channels, 5, padding=2, bias=False), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(channels, channels, 5, padding=2, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.MaxPool2d(2),
        )  # fmt: skip
        features = channels * bands // 4 if "C" in parts else bands * SUBSAMPLE
        self.narrow = nn.Sequential(nn.Linear(features, 2 * hidden), nn.LayerNorm(2 * hidden), nn.ReLU())
        self.lstm = nn.LSTM(2 * hidden, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.connect = nn.Sequential(
            nn.Linear(2 * hidden, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, 2 * hidden), nn.ReLU()
        )
        for part, layer in (("C", "convolve"), ("L", "lstm"), ("D", "connect")):
            if part not in parts:
                delattr(self, layer)
        self.classify = nn.Linear(2 * hidden, ALPHABET.num_classes)

    def forward(self, sound: Tensor) -> Tensor:
        """Map spectrograms (N, T, bands) to log-probabilities (N, T / SUBSAMPLE, classes)."""
        sound = 4 * sound - 2
        if "C" in self.parts:
            x = (
                self.convolve(sound[:, None]).transpose(1, 2).flatten(2)
            )  # (N, T / SUBSAMPLE, channels * bands / 4)
        else:
            x = sound.unflatten(1, (-1, SUBSAMPLE)).flatten(2)
        x = self.narrow(x)
        if "L" in self.parts:
            x = x + self.lstm(x)[0]  # its input passes by, too: the paper's multi-scale addition
        if "D" in self.parts:
            x = self.connect(x)
        return self.classify(x).float().log_softmax(2)


Batch = tuple[Tensor, list[int], list[str]]
"""Spectrograms (N, T, bands), frames of the network of each, and the strings."""


def make_batch(
    speech: Speech,
    voices: Sequence[str],
    count: int,
    lengths: Sequence[int],
    rng: np.random.Generator,
    *,
    changed: bool,
) -> Batch:
    """Return a batch of random strings, of lengths among ``lengths``, spoken by random voices."""
    texts = ["".join(map(str, rng.integers(0, 10, rng.choice(lengths)))) for _ in range(count)]
    sounds = [speech.utter(rng.choice(voices), text, rng, changed=changed) for text in texts]
    padded = pad_sequence(sounds, batch_first=True)
    padded = nn.functional.pad(padded, (0, 0, 0, -padded.shape[1] % SUBSAMPLE))
    return padded, [len(sound) // SUBSAMPLE for sound in sounds], texts


def lesson(progress: float) -> range:
    """Return the lengths of the strings to train on: single digits first, which CTC learns fastest to place."""
    return range(1, 2 if progress < 0.6 else 4)


def loss_of(model: CLDNN, batch: Batch) -> Tensor:
    """Return the mean CTC loss of a batch."""
    sounds, lengths, texts = batch
    tokens = [torch.tensor(ALPHABET.encode(text)) for text in texts]
    targets, target_lengths = pad_sequence(tokens, batch_first=True), [len(each) for each in tokens]
    return ctc_loss(model(sounds).transpose(0, 1), targets, lengths, target_lengths, ALPHABET.blank)


@torch.no_grad()
def error_rate(model: CLDNN, batch: Batch) -> float:
    """Return edits per digit."""
    sounds, lengths, texts = batch
    read = greedy_decode(model(sounds), lengths, blank=ALPHABET.blank).to_text(ALPHABET)
    return sum(map(edit_distance, texts, read)) / sum(map(len, texts))


@torch.no_grad()
def aligned(model: CLDNN, batch: Batch, voice: str) -> Figure:
    """Draw the spectrogram of the first string, and where the network finds its digits."""
    sounds, lengths, texts = batch
    log_probs = model(sounds[:1])[0, : lengths[0]]
    target = torch.tensor(ALPHABET.encode(texts[0]))
    path, scores = forced_align(log_probs, target, blank=ALPHABET.blank)
    digits = character_spans(merge_tokens(path, scores, ALPHABET.blank), ALPHABET, SUBSAMPLE)
    image = (255 * (1 - sounds[0, : SUBSAMPLE * lengths[0]].T.flip(0).clamp(0, 1))).byte().numpy()
    unit = f"frame of {1000 * SECONDS:g} ms"
    return plot_alignment(
        digits, image=image, title=texts[0], note=f"voice {voice!r}, not in training", unit=unit
    )


def main(full: bool, out: Path, seed: int, steps: int | None, parts: Sequence[str]) -> None:
    """Train the networks of some parts, print a table, and write the result and a picture."""
    size = FULL if full else Size()
    size = replace(size, steps=steps or size.steps)
    speech = Speech(DATA)
    voices = [voice for voice in speech.words if voice not in speech.held_out]
    bands = speech.words[voices[0]][0][0].shape[1]
    tests = {
        voice: make_batch(speech, [voice], size.tests, [5], np.random.default_rng(seed + 1), changed=False)
        for voice in (*speech.held_out, voices[0])
    }
    rows: list[tuple[object, ...]] = [("parts", *tests, "parameters")]
    errors, figures = {}, {}
    for letters in parts:
        torch.manual_seed(seed)
        rng, progress = np.random.default_rng(seed), iter(range(size.steps))
        model = CLDNN(bands, size.hidden, letters)

        def batch_loss(
            model: CLDNN = model, rng: np.random.Generator = rng, done: Iterator[int] = progress
        ) -> Tensor:
            lengths = lesson(next(done) / size.steps)
            return loss_of(model, make_batch(speech, voices, size.batch, lengths, rng, changed=True))

        train(model, batch_loss, size.steps, max_lr=0.006, name=letters)
        errors[letters] = {voice: error_rate(model, batch) for voice, batch in tests.items()}
        rows.append((letters, *errors[letters].values(), sum(p.numel() for p in model.parameters())))
        if letters == parts[0]:
            figures["alignment"] = aligned(model, tests[speech.held_out[0]], speech.held_out[0])
    print_table(rows)
    result = {"size": asdict(size), "seed": seed, "held out": speech.held_out, "digit error rate": errors}
    save(out, result, **figures)


if __name__ == "__main__":
    main(**vars(parser.parse_args()))
