"""Reading images with a trained model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastctc.alignment import TokenSpan, forced_align, merge_tokens
from fastctc.crnn.data import (
    Constraint,
    ImageError,
    ImageLike,
    Pixels,
    Prepared,
    PreprocessConfig,
    own_torch_state,
    prepare,
    shipped_domain,
    usable_device,
)
from fastctc.crnn.model import CRNN, Checkpoint, folded, load_checkpoint, without_case
from fastctc.crnn.read.calibration import confidence_of
from fastctc.crnn.read.decoding import Decoder, Hypothesis, Scorers
from fastctc.crnn.read.inference import check_precision, reading_config
from fastctc.crnn.read.knowledge import model_of_characters
from fastctc.crnn.read.looking import Look, look, look_twice
from fastctc.crnn.read.nothing import why_nothing
from fastctc.text import Alphabet, TextSpan, character_spans


@dataclass(frozen=True)
class Evidence:
    """The model's output for one image.

    Attributes:
        log_probs: (T, C) natural-log probabilities, on the CPU.
        alphabet: characters and blank.
        columns_per_frame: columns of the original image that become one frame; not a whole number.
        width: columns of the original image.
    """

    log_probs: Tensor
    alphabet: Alphabet
    columns_per_frame: float
    width: int

    @own_torch_state()
    def align(self, text: str) -> list[TokenSpan]:
        """Return the frames of each character of a text, by :func:`fastctc.forced_align`."""
        tokens = torch.tensor([self.alphabet.encode(text)], dtype=torch.int64)
        frames, blank = len(self.log_probs), self.alphabet.blank
        paths, scores = forced_align(self.log_probs[None], tokens, [frames], [tokens.shape[1]], blank=blank)
        (spans,) = merge_tokens(paths, scores, blank)
        return list(spans)

    def spans(self, text: str) -> list[TextSpan]:
        """Return where the image shows each character of a text, in columns of the original image."""
        spans = character_spans(self.align(text), self.alphabet, self.columns_per_frame)
        return [replace(span, end=min(span.end, float(self.width))) for span in spans]


@dataclass(frozen=True)
class Reading:
    """What was read from one image.

    Attributes:
        text: the best text; empty if the image could not be read.
        score: natural-log probability of ``text`` given the image, plus the weight of scorers; -inf if the image
            could not be read.
        nbest: hypotheses, the best first.
        error: why the image could not be read; None if it could.
        warning: why the text may not be what the image shows, such as an empty text of an image that has ink;
            None without a reason.
        evidence: the model's output, after a second look for the view that counts; None if the image could not be
            read.
        temperature: of the model, see :class:`fastctc.crnn.Checkpoint`.
    """

    text: str
    score: float
    nbest: list[Hypothesis] = field(default_factory=list)
    error: str | None = None
    warning: str | None = None
    evidence: Evidence | None = field(default=None, repr=False, compare=False)
    temperature: float = field(default=1.0, repr=False, compare=False)

    @property
    def confidence(self) -> float:
        """Return the probability of ``text`` given the image, summed over all alignments: 0 to 1.

        A calibrated model has a temperature, which brings it near the share of such texts that are exact.
        """
        return confidence_of(self.nbest[0].log_prob if self.nbest else self.score, self.temperature)

    @cached_property
    def spans(self) -> list[TextSpan]:
        """Return the characters of ``text`` from left to right, with their columns in the original image.

        They are rough after a second look in which a turned or straightened form of the image won.
        """
        return [] if self.evidence is None else self.evidence.spans(self.text)


def prepared(image: ImageLike, preprocess: PreprocessConfig) -> Prepared | str:
    """Return an image prepared for the model, or why it cannot be read."""
    try:
        return prepare(image, preprocess)
    except ImageError as error:
        return str(error)


class Recognizer:
    """A trained model that reads images.

    Attributes:
        scorer: what weighs texts where :meth:`read` is told nothing about them; None: nothing. :meth:`load` sets it
            for ``"words"``, to a model of the language of its texts.
        second_look: the confidence below which an image is looked at again.

    Example:
        >>> import numpy as np
        >>> recognizer = Recognizer.load("formula")
        >>> recognizer.read(np.full((60, 180), 255, np.uint8)).text  # an empty page
        ''
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: str | torch.device = "cpu",
        *,
        precision: str = "fp32",
        ignore_case: bool = False,
        second_look: float = 0.0,
    ) -> None:
        if not 0 <= second_look <= 1:
            raise ValueError(f"second_look is {second_look}, expected a confidence from 0 to 1")
        self.ignore_case, self.second_look = ignore_case, second_look
        self.checkpoint = checkpoint = without_case(checkpoint) if ignore_case else checkpoint
        self.scorer: Scorers | None = None
        self.alphabet = checkpoint.alphabet
        self.device = usable_device(device)
        check_precision(precision, self.device)
        self.precision = precision
        self.preprocess = reading_config(checkpoint.preprocess)
        self.model: CRNN = folded(checkpoint.model).to(self.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def load(
        cls,
        checkpoint: str | Path = "formula",
        device: str | torch.device = "cpu",
        *,
        precision: str = "fp32",
        ignore_case: bool = False,
        second_look: float | None = None,
    ) -> Recognizer:
        """Return a recognizer with the model of a checkpoint.

        Args:
            checkpoint: a file, or the name of a model that comes with the package: ``"formula"`` or
                ``"words"``.
            device: where the model runs.
            precision: ``"fp32"``, or ``"bf16"``, which is faster where the processor multiplies it.
            ignore_case: read all letters as small ones; the probabilities of a letter and its capital are added.
            second_look: an image whose confidence is below it, or in which nothing is read, is read in other forms
                too: wider, narrower, in its colors, straightened from an arc, and turned if it is tall. These vote.
                From 0 to 1; 0: none; None: 0.05 for ``"words"``, and none for others.

        Raises:
            FileNotFoundError: no such file.
            ValueError: ``device`` cannot be used, or cannot compute in this precision. Or ``second_look`` is not
                from 0 to 1.
            fastctc.crnn.CheckpointError: not a checkpoint, damaged, or of a later version.
        """
        domain = shipped_domain(checkpoint)
        if second_look is None:
            second_look = domain.second_look if domain else 0.0
        recognizer = cls(
            load_checkpoint(checkpoint), device, precision=precision, ignore_case=ignore_case,
            second_look=second_look,
        )  # fmt: skip
        if domain is not None and domain.language is not None:
            model = model_of_characters(domain.language.path, recognizer.alphabet)
            recognizer.scorer = model.scaled(domain.language.weight, domain.language.bonus)
        return recognizer

    @overload
    def read(  # type: ignore[overload-overlap]  # a text is one path
        self, images: ImageLike, batch_size: int = ..., *, beam_size: int | None = ..., nbest: int = ...,
        constraint: Constraint | None = ..., scorer: Scorers | None = ...,
    ) -> Reading: ...  # fmt: skip

    @overload
    def read(
        self, images: Iterable[ImageLike], batch_size: int = ..., *, beam_size: int | None = ...,
        nbest: int = ..., constraint: Constraint | None = ..., scorer: Scorers | None = ...,
    ) -> list[Reading]: ...  # fmt: skip

    def read(
        self,
        images: ImageLike | Iterable[ImageLike],
        batch_size: int = 64,
        *,
        beam_size: int | None = None,
        nbest: int = 1,
        constraint: Constraint | None = None,
        scorer: Scorers | None = None,
    ) -> Reading | list[Reading]:
        """Read an image, or images in the order given, of any kind and size.

        Args:
            images: a path, encoded bytes, a PIL image or a uint8 array (H, W) or (H, W, 3 or 4); or an iterable
                of images.
            batch_size: images that go through the model together; no influence on the result.
            beam_size: prefixes in the beam of :func:`fastctc.beam_search`; None: greedy decoding, or 20 with a
                constraint or a scorer.
            nbest: hypotheses for each image, at most ``beam_size``, or 1 in greedy decoding.
            constraint: which texts are allowed, such as :class:`fastctc.crnn.FormulaConstraint`; None: all. Of
                its n-best only the first is sure to be the most probable of all that are allowed.
            scorer: what weighs texts, see :func:`fastctc.beam_search`: a model of language, a lexicon, hotwords, a
                format, or a sequence of these. Its labels are the classes of ``alphabet``. With a constraint
                too, the constraint is one of the scorers. None: the recognizer's own, unless there is a constraint;
                ``()``: none.

        Returns:
            A reading, or a list of one reading for each image. An image that cannot be read gives a reading with
            ``error`` set.

        Raises:
            TypeError: ``images`` is neither an image nor an iterable.
            ValueError: ``batch_size``, ``beam_size`` or ``nbest`` out of range, or a constraint with no text made
                of the model's characters. Or a constraint that does not list its texts, beside a scorer.
        """
        single = isinstance(images, str | Path | bytes | Image.Image | np.ndarray)
        if not single and not isinstance(images, Iterable):
            raise TypeError(f"images is {images!r}, expected an image, or an iterable of images")
        several: Iterable[ImageLike] = [images] if single else images  # type: ignore[list-item, assignment]
        readings = list(
            self.read_stream(
                several, batch_size, beam_size=beam_size, nbest=nbest, constraint=constraint, scorer=scorer
            )
        )
        return readings[0] if single else readings

    def read_stream(
        self,
        images: Iterable[ImageLike],
        batch_size: int = 64,
        *,
        beam_size: int | None = None,
        nbest: int = 1,
        constraint: Constraint | None = None,
        scorer: Scorers | None = None,
    ) -> Iterator[Reading]:
        """Yield what :meth:`read` returns, batch after batch: only one batch of images is in memory."""
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1")
        decoder = self.decoder(beam_size=beam_size, nbest=nbest, constraint=constraint, scorer=scorer)
        chunks = iter(images)
        return (
            reading
            for chunk in iter(lambda: list(islice(chunks, batch_size)), [])
            for reading in self._read_chunk(chunk, decoder)
        )

    def decoder(
        self,
        *,
        beam_size: int | None = None,
        nbest: int = 1,
        constraint: Constraint | None = None,
        scorer: Scorers | None = None,
    ) -> Decoder:
        """Return what finds the texts of log-probabilities, by the arguments of :meth:`read`."""
        if scorer is None and constraint is None:
            scorer = self.scorer
        return Decoder(self.alphabet, beam_size=beam_size, nbest=nbest, constraint=constraint, scorer=scorer)

    def _read_chunk(self, images: Sequence[ImageLike], decoder: Decoder) -> list[Reading]:
        return self.read_prepared(
            [prepared(image, self.preprocess) for image in images], images.__getitem__, decoder
        )

    @own_torch_state()
    def read_prepared(
        self, images: Sequence[Prepared | str], original: Callable[[int], ImageLike], decoder: Decoder
    ) -> list[Reading]:
        """Return the readings of images that ``prepared`` has made, as one batch.

        Args:
            images: prepared images, or why there is none.
            original: returns the image that one of them was made of, by its place; called for a second look alone.
            decoder: from the model's output to texts.
        """
        readable = [(n, each) for n, each in enumerate(images) if not isinstance(each, str)]
        read = iter(
            self._read_prepared([image for _, image in readable], lambda k: original(readable[k][0]), decoder)
        )
        return [
            Reading("", -math.inf, error=each) if isinstance(each, str) else next(read) for each in images
        ]

    def _read_prepared(
        self, prepared: list[Prepared], original: Callable[[int], ImageLike], decoder: Decoder
    ) -> list[Reading]:
        """Return the readings of prepared images."""
        if not prepared:
            return []
        columns = self.model.config.columns_per_frame
        return [
            _reading(
                decoder,
                seen.hypotheses,
                image,
                Evidence(seen.log_probs, self.alphabet, columns * image.size[0] / seen.width, image.size[0]),
                self.checkpoint.temperature,
            )
            for seen, image in zip(
                self.look([each.pixels for each in prepared], original, decoder), prepared, strict=True
            )
        ]

    @own_torch_state()
    def look(
        self, images: list[Pixels], original: Callable[[int], ImageLike], decoder: Decoder
    ) -> list[Look]:
        """Return what the model sees in prepared images, with a second look if that is on.

        Args:
            images: (H, W) uint8 each.
            original: returns the image that one of them was made of, by its place; called for a second look alone.
            decoder: from the model's output to texts.
        """

        def see(images: list[Pixels]) -> list[Look]:
            return look(self.model, images, self.checkpoint.preprocess, decoder, self.device, self.precision)

        return look_twice(
            images, see, original, self.preprocess, self.second_look, self.checkpoint.temperature
        )


def _reading(
    decoder: Decoder, hypotheses: list[Hypothesis], image: Prepared, evidence: Evidence, temperature: float
) -> Reading:
    if not hypotheses:
        error = decoder.why_no_hypothesis(evidence.log_probs)
        return Reading("", -math.inf, error=error, warning=image.warning)
    text, score = hypotheses[0].text, hypotheses[0].score
    warnings = [image.warning, None if text else why_nothing(image.pixels)]
    warning = "; ".join(filter(None, warnings)) or None
    return Reading(text, score, hypotheses, warning=warning, evidence=evidence, temperature=temperature)
