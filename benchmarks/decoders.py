"""The beam searches that are compared, each called as it likes best; none with a language model or a lexicon.

fastctc            fastctc.beam_search as it comes: exact cuts only, nbest=1
fastctc_nbest      the same, nbest=beam; fastctc_exact: with exact_scores too
fastctc_cut        the same as fastctc, with token_threshold 5 and beam_threshold 10, much as pyctcdecode cuts
fastctc_threads    the same as fastctc, with more threads (CPU only)
fastctc_device     the same as fastctc, the result left on the GPU (CUDA only)

flashlight         flashlight-text, log_add, a frame's beam + 2 best tokens, no threshold: next to lossless
flashlight_max     the same without log_add, which is its default: scores of the best path
flashlight_fast    log_add, the 5 best tokens, beam_threshold 10
torchaudio         its ctc_decoder, which has flashlight inside: set as `flashlight`
fast_ctc_decode    fast-ctc-decode, beam_cut_threshold 1e-3; one-best; not above 256 classes
pyctcdecode        as it comes: tokens below exp(-5) and beams exp(-10) below the best are cut
ctcdecode          parlance/ctcdecode, nothing cut
cuda_ctc_decoder   torchaudio's, blank_skip_threshold 1: no frame is skipped (CUDA only)
cuda_ctc_decoder_skip   as it comes: frames where the blank has more than 0.95 are skipped

fastctc is timed with its `.to_list()`, the others with what it takes to get the best labels or text. flashlight and
fast-ctc-decode take one sequence at a time: the loop over the batch is part of the call, as it is for their users.
"""

from __future__ import annotations

import importlib
import io
import itertools
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import fastctc
from beam_cases import BLANK, Shape
from peers import versions

Hypotheses = list[list[list[int]]]  # [sample][hypothesis][token], the best first


class Decoder:
    """One beam search: `prepare` its input, time the call, look at what it gave with `hypotheses`."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def prepare(self, log_probs: Tensor) -> Any:
        """Return `log_probs` (N, T, C), float32 and contiguous, in the form that the call takes."""
        return log_probs

    def __call__(self, prepared: Any) -> Any:
        raise NotImplementedError

    def hypotheses(self, raw: Any) -> Hypotheses:
        """Return the hypotheses of the call."""
        found: Hypotheses = raw
        return found

    def nbest(self, prepared: Any) -> Hypotheses:
        """Return all hypotheses that the call can give."""
        return self.hypotheses(self(prepared))


class Fastctc(Decoder):
    """`options` go to fastctc.beam_search."""

    def __init__(self, shape: Shape, *, threads: int = 0, as_lists: bool = True, **options: Any) -> None:
        super().__init__(shape)
        self.threads, self.as_lists = threads, as_lists
        self.options = {"beam_size": shape.W, "blank": BLANK, **options}

    def search(self, log_probs: Tensor) -> Any:
        return fastctc.beam_search(log_probs, **self.options)

    def __call__(self, log_probs: Tensor) -> Any:
        if not self.threads:
            found = self.search(log_probs)
            return found.to_list() if self.as_lists else found
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        found = self.search(log_probs).to_list()
        torch.set_num_threads(before)
        return found

    def hypotheses(self, raw: Any) -> Hypotheses:
        found: Hypotheses = raw if self.as_lists else raw.to_list()
        return found


def collapsed(path: list[int]) -> list[int]:
    return [token for token, _ in itertools.groupby(path) if token != BLANK]


class Flashlight(Decoder):
    def __init__(
        self, shape: Shape, *, log_add: bool = True, tokens: int | None = None, threshold: float = 1e9
    ) -> None:
        super().__init__(shape)
        decoder = importlib.import_module("flashlight.lib.text.decoder")
        options = decoder.LexiconFreeDecoderOptions(
            beam_size=shape.W,
            beam_size_token=min(shape.C, tokens or shape.W + 2),
            beam_threshold=threshold,
            lm_weight=0.0,
            sil_score=0.0,
            log_add=log_add,
            criterion_type=decoder.CriterionType.CTC,
        )
        self.model = decoder.ZeroLM()  # the decoder keeps a bare pointer to it
        self.decoder = decoder.LexiconFreeDecoder(options, self.model, -1, BLANK, [])

    def __call__(self, log_probs: Tensor) -> Any:
        """Return the results of each sample, and the labels of the best."""
        found = []
        for sample in log_probs:
            results = self.decoder.decode(sample.data_ptr(), self.shape.T, self.shape.C)
            found.append((results, collapsed(results[0].tokens[1:-1])))  # a blank is put at either end
        return found

    def hypotheses(self, raw: Any) -> Hypotheses:
        return [[collapsed(each.tokens[1:-1]) for each in results] for results, _ in raw]


class Torchaudio(Decoder):
    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.decoder = importlib.import_module("torchaudio.models.decoder").ctc_decoder(
            lexicon=None,
            tokens=[f"t{i}" for i in range(shape.C)],
            nbest=1,
            beam_size=shape.W,
            beam_size_token=min(shape.C, shape.W + 2),
            beam_threshold=1e9,
            log_add=True,
            blank_token=f"t{BLANK}",
            sil_token=f"t{BLANK}",  # it is put at either end
        )

    def __call__(self, log_probs: Tensor) -> Any:
        return self.decoder(log_probs)

    def hypotheses(self, raw: Any) -> Hypotheses:
        return [[each.tokens.tolist() for each in sample] for sample in raw]

    def nbest(self, prepared: Any) -> Hypotheses:
        self.decoder.nbest = self.shape.W
        found = self.hypotheses(self(prepared))
        self.decoder.nbest = 1
        return found


class FastCtcDecode(Decoder):
    """Takes probabilities and gives text: each token has a character."""

    FIRST = 0x100
    MOST_CLASSES = 256  # one sample of 300 frames and 5000 classes takes it gigabytes and half a minute

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        if shape.C > self.MOST_CLASSES:
            raise ValueError(f"more than {self.MOST_CLASSES} classes take too much memory")
        self.search = importlib.import_module("fast_ctc_decode").beam_search
        self.alphabet = "".join(chr(self.FIRST + i) for i in range(shape.C))

    def prepare(self, log_probs: Tensor) -> Any:
        return list(log_probs.exp().numpy())

    def __call__(self, probabilities: Any) -> Any:
        return [
            self.search(sample, self.alphabet, beam_size=self.shape.W, beam_cut_threshold=1e-3)[0]
            for sample in probabilities
        ]

    def hypotheses(self, raw: Any) -> Hypotheses:
        return [[[ord(character) - self.FIRST for character in text]] for text in raw]


class Pyctcdecode(Decoder):
    """Gives text: each token has a character."""

    FIRST = 0x4E00

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        names = [chr(self.FIRST + i) for i in range(shape.C)]
        names[BLANK] = ""
        self.decoder = quietly(lambda: importlib.import_module("pyctcdecode").build_ctcdecoder(names))

    def prepare(self, log_probs: Tensor) -> Any:
        return list(log_probs.numpy())

    def __call__(self, log_probs: Any) -> Any:
        return self.decoder.decode_beams_batch(None, log_probs, beam_width=self.shape.W)

    def hypotheses(self, raw: Any) -> Hypotheses:
        return [[[ord(character) - self.FIRST for character in beam[0]] for beam in sample] for sample in raw]


class Ctcdecode(Decoder):
    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.decoder = importlib.import_module("ctcdecode").CTCBeamDecoder(
            [chr(0x4E00 + i) for i in range(shape.C)],
            beam_width=shape.W,
            cutoff_top_n=shape.C,
            cutoff_prob=1.0,
            blank_id=BLANK,
            num_processes=1,
            log_probs_input=True,
        )

    def __call__(self, log_probs: Tensor) -> Any:
        tokens, _, _, lengths = self.decoder.decode(log_probs)
        return tokens, lengths

    def hypotheses(self, raw: Any) -> Hypotheses:
        tokens, lengths = (each.tolist() for each in raw)
        return [[row[:length] for row, length in zip(*sample)] for sample in zip(tokens, lengths)]


class CudaCtcDecoder(Decoder):
    LARGEST_BEAM = 128  # it ends the process above

    def __init__(self, shape: Shape, blank_skip: float = 1.0) -> None:
        super().__init__(shape)
        if shape.W > self.LARGEST_BEAM:
            raise ValueError(f"beam above {self.LARGEST_BEAM}")
        self.decoder = importlib.import_module("torchaudio.models.decoder").cuda_ctc_decoder(
            [f"t{i}" for i in range(shape.C)], nbest=1, beam_size=shape.W, blank_skip_threshold=blank_skip
        )
        self.lengths = torch.full((shape.N,), shape.T, dtype=torch.int32, device="cuda")

    def __call__(self, log_probs: Tensor) -> Any:
        return self.decoder(log_probs, self.lengths)

    def hypotheses(self, raw: Any) -> Hypotheses:
        return [[list(each.tokens) for each in sample] for sample in raw]

    def nbest(self, prepared: Any) -> Hypotheses:
        self.decoder.nbest = self.decoder.beam_size
        found = self.hypotheses(self(prepared))
        self.decoder.nbest = 1
        return found


def quietly(make: Callable[[], Any]) -> Any:
    """Return the result of `make`, without its prints."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return make()


@dataclass(frozen=True)
class Peer:
    make: Callable[[Shape], Decoder]
    module: str  # that must be importable
    packages: tuple[str, ...]  # that it comes from
    device: str = "cpu"


FLASHLIGHT = "flashlight.lib.text.decoder", ("flashlight-text",)
TORCHAUDIO = "torchaudio.models.decoder._ctc_decoder", ("torchaudio", "flashlight-text")
CUDA_CTC_DECODER = "torchaudio.models.decoder._cuda_ctc_decoder", ("torchaudio",), "cuda"
PEERS = {
    "flashlight": Peer(Flashlight, *FLASHLIGHT),
    "flashlight_max": Peer(lambda shape: Flashlight(shape, log_add=False), *FLASHLIGHT),
    "flashlight_fast": Peer(lambda shape: Flashlight(shape, tokens=5, threshold=10.0), *FLASHLIGHT),
    "torchaudio": Peer(Torchaudio, *TORCHAUDIO),
    "fast_ctc_decode": Peer(FastCtcDecode, "fast_ctc_decode", ("fast-ctc-decode",)),
    "pyctcdecode": Peer(Pyctcdecode, "pyctcdecode", ("pyctcdecode",)),
    "ctcdecode": Peer(Ctcdecode, "ctcdecode", ("ctcdecode",)),
    "cuda_ctc_decoder": Peer(CudaCtcDecoder, *CUDA_CTC_DECODER),
    "cuda_ctc_decoder_skip": Peer(lambda shape: CudaCtcDecoder(shape, blank_skip=0.95), *CUDA_CTC_DECODER),
}


def choose(names: list[str], device: torch.device) -> tuple[dict[str, str], list[str]]:
    """Return the decoders for this device with their versions, and why the others cannot be used."""
    usable, missing = {}, []
    for name in [name for name in names if PEERS[name].device == device.type]:
        peer = PEERS[name]
        version = versions(peer.packages)
        try:
            quietly(lambda: importlib.import_module(peer.module))  # noqa: B023 (it is called at once)
        except Exception as error:  # an extension for another PyTorch may raise anything
            reason = f" ({version} fails to load: {type(error).__name__})" if version else ""
            missing.append(name + reason)
        else:
            usable[name] = version or "no version"
    return usable, missing


def ours(shape: Shape, device: torch.device, threads: int) -> dict[str, Fastctc]:
    """Return the sides of fastctc; `threads` is for fastctc_threads, 0 for no such side."""
    sides = {
        "fastctc": Fastctc(shape),
        "fastctc_nbest": Fastctc(shape, nbest=shape.W),
        "fastctc_exact": Fastctc(shape, nbest=shape.W, exact_scores=True),
        "fastctc_cut": Fastctc(shape, token_threshold=5.0, beam_threshold=10.0),
    }
    if device.type == "cuda":
        sides["fastctc_device"] = Fastctc(shape, as_lists=False)
    elif threads:
        sides["fastctc_threads"] = Fastctc(shape, threads=threads)
    return sides
