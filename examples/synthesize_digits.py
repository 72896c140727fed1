"""Speak the digits with flite and espeak-ng, and write their spectrograms: the data of spoken_digits.py.

It needs both programs (Debian: apt install flite espeak-ng). The written file is part of the repository.

    python examples/synthesize_digits.py examples/spoken_digits.npz
"""

import argparse
import io
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np

from fastctc.crnn.data import write_atomically

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
BANDS = 32  # mel bands from 100 to 7000 Hz
HOP, WINDOW = 0.0125, 0.025  # seconds
RANGE = 10.0  # nepers below the loudest band that are kept

TRAINING = (
    "flite kal16", "flite awb", "flite rms", "en-us+m1", "en-us+f4", "en-us+klatt2", "en-us+Annie", "en-us+Alex",
    "en-us+belinda", "en-us-nyc+m7", "en-us-nyc+f3", "en-gb+m3", "en-gb+f1", "en-gb+Andrea", "en-gb-scotland+m2",
    "en-gb-scotland+f2", "en-gb-x-rp+klatt4", "en-gb-x-rp+f5", "en-gb-x-gbclan+m5", "en-029+m6", "en-029+steph",
)  # fmt: skip
HELD_OUT = ("flite slt", "en-us+linda", "en-gb+m4")

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
)
parser.add_argument("path", type=Path, help="the file to write, .npz")


def speak(voice: str, word: str, slow: bool) -> tuple[np.ndarray, int]:
    """Return samples (float, from -1 to 1) of a word, and their rate in Hz."""
    program, _, name = voice.rpartition(" ")
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/word.wav"
        if program == "flite":
            stretch = "1.15" if slow else "0.9"
            command = [
                "flite",
                "-voice",
                name,
                "--setf",
                f"duration_stretch={stretch}",
                "-t",
                word,
                "-o",
                path,
            ]
        else:
            speed, pitch = ("120", "42") if slow else ("165", "55")
            command = ["espeak-ng", "-v", name, "-s", speed, "-p", pitch, "-w", path, word]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        with wave.open(path) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
            return samples / 32768, file.getframerate()


def spectrogram(samples: np.ndarray, rate: int) -> np.ndarray:
    """Return the log energies of the mel bands, (T, BANDS) uint8; 255 is the loudest, 0 is RANGE below it."""
    size, hop = round(WINDOW * rate), round(HOP * rate)
    samples = np.pad(samples, size)
    samples = samples[1:] - 0.97 * samples[:-1]  # raises high bands, which are quiet in speech
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[::hop] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames)) ** 2
    energy = np.log(power @ _mel_filters(np.fft.rfftfreq(size, 1 / rate)).T + 1e-12)
    loud = energy.max(1) > energy.max() - 0.7 * RANGE
    first, last = np.flatnonzero(loud)[[0, -1]]
    return _to_bytes(energy[first : last + 1])


def _mel_filters(frequencies: np.ndarray) -> np.ndarray:
    """Return triangles (BANDS, F), evenly spaced in mel."""
    low, high = (2595 * np.log10(1 + hertz / 700) for hertz in (100, 7000))
    edges = 700 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595) - 1)
    left, middle, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rise, fall = (frequencies - left) / (middle - left), (right - frequencies) / (right - middle)
    return np.clip(np.minimum(rise, fall), 0, None)


def _to_bytes(energy: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip((energy - energy.max()) / RANGE + 1, 0, 1)).astype(np.uint8)


def main(path: Path) -> None:
    """Write arrays: frames (all, BANDS) of all words after each other; lengths, digit and voice of each word."""
    words, digits, voices = [], [], []
    for voice in (*TRAINING, *HELD_OUT):
        for slow in (False, True):
            for digit, word in enumerate(WORDS):
                words.append(spectrogram(*speak(voice, word, slow)))
                digits.append(digit)
                voices.append(voice)
    content = io.BytesIO()
    np.savez_compressed(
        content,
        frames=np.concatenate(words),
        lengths=np.array([len(word) for word in words]),
        digits=np.array(digits, np.uint8),
        voices=np.array(voices),
        held_out=np.array(HELD_OUT),
    )
    write_atomically(path, content.getvalue())
    print(f"{len(words)} words of {len({*voices})} voices, {len(content.getvalue()):,} bytes: {path}")


if __name__ == "__main__":
    main(**vars(parser.parse_args()))
