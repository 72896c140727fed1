"""Make the folder of speech data that bench_word_search.py decodes, from installed packages alone.

FOLDER gets five files:
  words.arpa       the English word 3-gram of pocketsphinx
  lexicon.txt      its pronunciation dictionary in the phonemes of the speech model, words of words.arpa only
  tokens.txt       the names of the classes, one per line; <wb> ends each word, <blank> is the last class
  phonemes.npz     log-probabilities (T, classes) float16 of each utterance; VOICE_I speaks line I of references.txt
  references.txt   one sentence per line, in lower case

pip install --no-deps pocketsphinx==5.1.1 hama==1.7.0
apt-get install flite      (or --flite PROGRAM; not needed with --posteriors)
"""

# ruff: noqa: RUF001 (letters of the International Phonetic Alphabet)
from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sphinx_arpa import write_arpa

EXAMPLES = """examples:
  python benchmarks/prepare_speech.py speech                                   40 sentences by three voices
  python benchmarks/prepare_speech.py speech --sentences mine.txt --voices slt
  python benchmarks/prepare_speech.py speech --posteriors DIR                  utterances from there
"""
VOICES = ["slt", "rms", "awb"]
SENTENCES = Path(__file__).with_name("speech_sentences.txt")
WORD_END, BLANK = "<wb>", "<blank>"
IPA_OF_ARPABET = {
    **{"AA": "ɑ", "AE": "æ", "AO": "ɔ", "AW": "aʊ", "AY": "aɪ", "B": "b", "CH": "t͡ʃ", "D": "d", "DH": "ð"},
    **{"EH": "ɛ", "ER": "ɝ", "EY": "eɪ", "F": "f", "G": "ɡ", "HH": "h", "IH": "ɪ", "IY": "i", "JH": "d͡ʒ"},
    **{"K": "k", "L": "l", "M": "m", "N": "n", "NG": "ŋ", "OW": "oʊ", "OY": "ɔɪ", "P": "p", "R": "ɹ"},
    **{"S": "s", "SH": "ʃ", "T": "t", "TH": "θ", "UH": "ʊ", "UW": "u", "V": "v", "W": "w", "Y": "j"},
    **{"Z": "z", "ZH": "ʒ"},
}
# The dictionary does not tell whether this vowel has stress. The speech model writes it in two ways.
UNSTRESSED, IPA_OF_UNSTRESSED = "AH", ("ə", "ʌ")


def package_file(package: str, file: str) -> Path:
    """Return a file of an installed package.

    Raises:
        FileNotFoundError: the package is not installed, or it lacks the file.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"the package {package} is not installed: see --help")
    path = Path(spec.submodule_search_locations[0], file)
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: see --help for the version of {package}")
    return path


def write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def pronunciations(dictionary: Path, vocabulary: set[str]) -> Iterator[str]:
    """Yield a line of the lexicon per spelling, for the words of a vocabulary."""
    seen: dict[str, set[tuple[str, ...]]] = {}
    for line in dictionary.read_text(encoding="utf-8").splitlines():
        name, *phones = line.split()
        word = re.sub(r"\(\d+\)$", "", name)
        if word not in vocabulary:
            continue
        for vowel in IPA_OF_UNSTRESSED:
            spelling = tuple(vowel if p == UNSTRESSED else IPA_OF_ARPABET[p] for p in phones)
            spellings = seen.setdefault(word, set())
            if spelling not in spellings:
                spellings.add(spelling)
                number = f"({len(spellings)})" if len(spellings) > 1 else ""
                yield " ".join([word + number, *spelling, WORD_END])


def speak(flite: str, voice: str, sentence: str, path: Path) -> None:
    done = subprocess.run(
        [flite, "-voice", voice, "-t", sentence, "-o", str(path)], capture_output=True, text=True
    )
    if done.returncode or not path.exists():
        raise RuntimeError(f"{flite} failed with the voice {voice}: {done.stderr.strip()}")


def posteriors(sentences: list[str], voices: list[str], flite: str) -> tuple[list[str], dict[str, Any]]:
    """Return the names of the classes and the log-probabilities of each utterance.

    Raises:
        FileNotFoundError: flite or hama is missing.
        RuntimeError: flite fails.
    """
    program = shutil.which(flite)
    if program is None:
        raise FileNotFoundError(
            f"{flite} is not installed: `apt-get install flite`, name a program by --flite, or give --posteriors"
        )
    package_file("hama", "assets/asr_waveform.hama")
    from hama.asr import ASRModel, read_wav_mono  # type: ignore[import-not-found, unused-ignore]

    model, found = ASRModel(), {}
    utterances = [(voice, number) for number in range(len(sentences)) for voice in voices]
    with tempfile.TemporaryDirectory() as folder:
        for voice, number in tqdm(utterances, unit="utterance", file=sys.stderr, disable=None):
            path = Path(folder, f"{voice}_{number}.wav")
            speak(program, voice, sentences[number], path)
            waveform, rate = read_wav_mono(path)
            if rate != model.model_sample_rate:
                raise RuntimeError(
                    f"{voice} has {rate} samples per second, expected {model.model_sample_rate}"
                )
            feed = {"waveform": waveform[None], "waveform_lengths": np.array([len(waveform)])}
            log_probs, lengths = model.session.run(["log_probs", "out_lengths"], feed)
            found[path.stem] = log_probs[0, : int(np.ravel(lengths)[0])].astype(np.float16)
    return list(model.decoder_tokens), found


def copy_posteriors(source: Path, folder: Path) -> None:
    """Copy what --posteriors names.

    Raises:
        FileNotFoundError: the source lacks a file, or it has several archives.
    """
    archives = sorted(source.glob("*.npz"))
    if len(archives) != 1:
        raise FileNotFoundError(f"{source} has {len(archives)} files *.npz, expected one")
    shutil.copyfile(archives[0], folder / "phonemes.npz")
    for name in ("tokens.txt", "references.txt"):
        shutil.copyfile(source / name, folder / name)


def prepare(options: argparse.Namespace) -> None:
    """Write the files.

    Raises:
        FileNotFoundError: a package, a program or a file is missing.
    """
    folder: Path = options.folder
    model = package_file("pocketsphinx", "model/en-us/en-us.lm.bin")
    dictionary = package_file("pocketsphinx", "model/en-us/cmudict-en-us.dict")
    folder.mkdir(parents=True, exist_ok=True)
    if options.posteriors:
        copy_posteriors(options.posteriors, folder)
    else:
        sentences = options.sentences.read_text(encoding="utf-8").split("\n")[:-1]
        tokens, found = posteriors(sentences, options.voices, options.flite)
        np.savez_compressed(folder / "phonemes.npz", **found)
        write_text(folder / "tokens.txt", "".join(f"{token}\n" for token in tokens))
        write_text(folder / "references.txt", "".join(f"{sentence}\n" for sentence in sentences))
    words = write_arpa(model, folder / "words.arpa")
    lines = pronunciations(dictionary, set(words))
    write_text(folder / "lexicon.txt", "".join(f"{line}\n" for line in lines))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="where the files go")
    add(
        "--posteriors",
        type=Path,
        metavar="DIR",
        help="take tokens.txt, references.txt and the only *.npz from there",
    )
    add("--sentences", type=Path, default=SENTENCES, metavar="FILE", help=f"default: {SENTENCES.name}")
    add(
        "--voices", nargs="+", default=VOICES, metavar="VOICE", help=f"of flite (default: {' '.join(VOICES)})"
    )
    add("--flite", default="flite", metavar="PROGRAM", help="default: flite")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0, or 1 if something is missing."""
    try:
        prepare(parse(argv))
    except (FileNotFoundError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
