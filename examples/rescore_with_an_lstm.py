"""Decode with a neural language model: by rescoring the n-best, and by a callback within the beam search.

The example makes up a small language, trains an LSTM on 3,000 sentences of it in a few seconds, and decodes noisy
frames of new sentences. Replace `LanguageModel` by a model of your own, and `noisy_frames` by your model's output.

    python examples/rescore_with_an_lstm.py
    python examples/rescore_with_an_lstm.py --noise 3 --beam-size 50 --weight 0.8
"""

import argparse
import random
import time

import torch
from torch import Tensor, nn
from torch.nn.functional import nll_loss
from torch.nn.utils.rnn import pad_sequence

import fastctc
from fastctc.scoring import CallbackScorer, rescore

ALPHABET = fastctc.Alphabet("abcdefghijklmnopqrstuvwxyz ")
END = ALPHABET.blank  # also the first input: the blank is no token of a sentence

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
)
parser.add_argument("--sentences", type=int, default=20, help="sentences to decode (default: %(default)s)")
parser.add_argument("--noise", type=float, default=2.0, help="of the logits (default: %(default)s)")
parser.add_argument("--beam-size", type=int, default=20, help="prefixes (default: %(default)s)")
parser.add_argument("--weight", type=float, default=0.7, help="of the model (default: %(default)s)")
parser.add_argument("--steps", type=int, default=120, help="of training (default: %(default)s)")


def sentence(rng: random.Random) -> str:
    """Return a sentence of the language: who does what to whom, and where."""
    nouns = ["cat", "dog", "bird", "mouse", "horse", "farmer", "miller", "baker", "child", "king"]
    verbs = ["sees", "hears", "calls", "finds", "follows", "greets", "paints", "carries"]
    places = ["", " in the garden", " near the river", " under the old bridge", " behind the house"]
    who, whom = (f"{rng.choice(['the', 'a', 'one', 'this'])} {rng.choice(nouns)}" for _ in range(2))
    return f"{who} {rng.choice(verbs)} {whom}{rng.choice(places)}"


def noisy_frames(text: str, noise: float, generator: torch.Generator) -> Tensor:
    """Return (T, C) log-probabilities: two frames per character, one of it and one of the blank, with noise."""
    labels = [label for token in ALPHABET.encode(text) for label in (token, ALPHABET.blank)]
    logits = noise * torch.randn(len(labels), ALPHABET.num_classes, generator=generator)
    logits[torch.arange(len(labels)), labels] += 8.0
    return logits.log_softmax(1)


class LanguageModel(nn.Module):
    """Predict the next character: an LSTM with one layer."""

    def __init__(self, classes: int, width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(classes, 16)
        self.lstm = nn.LSTM(16, width, batch_first=True)
        self.classify = nn.Linear(width, classes)

    def forward(
        self, tokens: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return ln P (B, L, C) of what follows each of the tokens (B, L), and the state (1, B, width) twice."""
        output, state = self.lstm(self.embed(tokens), state)
        return self.classify(output).log_softmax(2), state

    def log_prob(self, sentences: list[list[int]]) -> Tensor:
        """Return ln P of each sentence with its end."""
        rows = [torch.tensor([END, *tokens, END]) for tokens in sentences]
        padded = pad_sequence(rows, batch_first=True, padding_value=-1)
        inputs, targets = padded[:, :-1].clamp(min=0), padded[:, 1:]
        found = self(inputs)[0].gather(2, targets.clamp(min=0)[..., None])[..., 0]
        return found.masked_fill(targets < 0, 0.0).sum(1)

    def scorer(self, weight: float) -> CallbackScorer:
        """Return the model as a scorer. A state is the LSTM's, and ln P of what follows."""

        def step(states: tuple[Tensor, ...], tokens: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
            hidden, cell, following = states
            gains = weight * following.gather(1, tokens[:, None])[:, 0]
            log_probs, (hidden, cell) = self(tokens[:, None], (hidden[None], cell[None]))
            return (hidden[0], cell[0], log_probs[:, 0]), gains

        def end(states: tuple[Tensor, ...]) -> Tensor:
            return weight * states[2][:, END]

        log_probs, (hidden, cell) = self(torch.tensor([[END]]))
        start = (hidden[0, 0], cell[0, 0], log_probs[0, 0])
        return CallbackScorer(start, step, end)


def train(steps: int) -> LanguageModel:
    """Return a model of the language, trained on sentences of it."""
    rng = random.Random(0)
    torch.manual_seed(0)
    rows = [torch.tensor([END, *ALPHABET.encode(sentence(rng)), END]) for _ in range(3000)]
    model = LanguageModel(ALPHABET.num_classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        batch = pad_sequence(rng.sample(rows, 32), batch_first=True, padding_value=-1)
        log_probs, _ = model(batch[:, :-1].clamp(min=0))
        loss = nll_loss(log_probs.flatten(0, 1), batch[:, 1:].flatten(), ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def edit_distance(a: str, b: str) -> int:
    """Return the fewest insertions, deletions and substitutions from one text to another."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        above, row = row, [i]
        for j, y in enumerate(b, start=1):
            row.append(min(above[j - 1] + (x != y), above[j] + 1, row[-1] + 1))
    return row[-1]


def report(name: str, result: fastctc.NBestResult, texts: list[str], began: float) -> None:
    """Print the share of wrong characters, the first sentence, and the time."""
    found = result.best().to_text(ALPHABET)
    errors = sum(map(edit_distance, texts, found))
    share = errors / sum(map(len, texts))
    print(f"{name:22} {share:6.1%} wrong characters  {found[0]!r}  {time.perf_counter() - began:.1f} s")


@torch.no_grad()
def main(sentences: int, noise: float, beam_size: int, weight: float, steps: int) -> None:
    """Print the errors without a model, after rescoring, and with the model in the beam search."""
    with torch.enable_grad():
        model = train(steps)
    rng, generator = random.Random(1), torch.Generator().manual_seed(1)
    texts = [sentence(rng) for _ in range(sentences)]
    frames = [noisy_frames(text, noise, generator) for text in texts]
    log_probs = pad_sequence(frames, batch_first=True)
    lengths = [len(each) for each in frames]

    began = time.perf_counter()
    alone = fastctc.beam_search(log_probs, lengths, beam_size=beam_size, nbest=beam_size)
    report("without a model", alone, texts, began)

    rescored = rescore(alone, model.log_prob, weight=weight)
    report(f"{beam_size}-best rescored", rescored, texts, began)

    began = time.perf_counter()
    within = fastctc.beam_search(log_probs, lengths, beam_size=beam_size, scorer=model.scorer(weight))
    report("model in the beam", within, texts, began)


if __name__ == "__main__":
    main(**vars(parser.parse_args()))
