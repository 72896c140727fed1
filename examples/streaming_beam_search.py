"""Decode a stream while its frames come in, and print the text so far after each chunk.

The frames are made up: the log-probabilities that a model might give for a text, with rivals for every character. A
model of your own would give `chunk` instead, (frames, classes).

    python examples/streaming_beam_search.py --text "streaming equals offline" --chunk 20
"""

import argparse

import torch
from torch import Tensor

import fastctc

LETTERS = "abcdefghijklmnopqrstuvwxyz '"

parser = argparse.ArgumentParser(description="Decode a stream of frames in chunks, printing the text so far.")
parser.add_argument("--text", default="streaming equals offline", help=f"made of {LETTERS!r}")
parser.add_argument("--chunk", type=int, default=20, help="frames a chunk")
parser.add_argument("--beam-size", type=int, default=16)
parser.add_argument("--seed", type=int, default=0)


def made_up_frames(text: str, alphabet: fastctc.Alphabet, seed: int) -> Tensor:
    """Return (T, C) log-probabilities: per character one or two frames of it, then two or three blanks."""
    generator = torch.Generator().manual_seed(seed)
    winners = []
    for label in alphabet.encode(text):
        run, pause = (int(torch.randint(low, low + 2, (), generator=generator)) for low in (1, 2))
        winners += [label] * run + [alphabet.blank] * pause
    logits = torch.randn(len(winners), alphabet.num_classes, generator=generator)
    logits[torch.arange(len(winners)), winners] += 6.0
    return logits.log_softmax(1)


def main(text: str, chunk: int, beam_size: int, seed: int) -> None:
    """Print the best text after each chunk, then the n-best of the whole with times and confidences."""
    alphabet = fastctc.Alphabet(LETTERS)
    frames = made_up_frames(text, alphabet, seed)
    decoder = fastctc.BeamSearchDecoder(beam_size=beam_size, nbest=3)
    for part in frames.split(chunk):
        decoder.push(part)
        (so_far,) = decoder.result(1).best().to_text(alphabet)
        print(f"{int(decoder.frames):5d} frames  {so_far}")

    result = decoder.result()
    (texts,) = result.to_text(alphabet)
    for candidate, score in zip(texts, result.scores[0].tolist()):
        print(f"log-probability {score:9.3f}  {candidate}")
    best = result.best()
    for label, frame, confidence in zip(
        best.to_list()[0], best.timesteps[0].tolist(), best.confidences[0].tolist()
    ):
        print(f"{alphabet.decode([label])!r} from frame {frame}, confidence {confidence:.2f}")

    offline = fastctc.beam_search(frames.unsqueeze(0), beam_size=beam_size, nbest=3)
    assert all(torch.equal(one, other) for one, other in zip(result, offline))


if __name__ == "__main__":
    main(**vars(parser.parse_args()))
