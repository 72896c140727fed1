"""Domains: kinds of text that this package can draw, and their properties.

A domain has its own sub-package and registers itself here. The rest of the package uses this registry alone, so a
new domain changes nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

from fastctc.crnn.data.settings import at_least, check_settings, setting
from fastctc.crnn.data.sources import KeyedSource


class Constraint(Protocol):
    """Which texts an image may show.

    A regular language needs none: :func:`fastctc.scoring.regular_expression` is a scorer of a search.
    """

    def candidates(self, nbest: Sequence[str], /) -> Iterable[str]:
        """Return allowed texts that an image may well show, given the best texts of an unconstrained search."""

    def all_texts(self) -> Sequence[str] | None:
        """Return every allowed text, or None if they are too many to be scored one by one.

        With a list, the text that is read is the most probable of all for certain.
        """


@dataclass(frozen=True)
class DrawConfig(ABC):
    """How a domain draws images to train on. A domain has its own subclass, with settings of its own.

    Attributes:
        images: how many images are drawn before training. None: what can be drawn in a fifth of the minutes.
        rounds: how many times, evenly over the run, the images are replaced by as many new ones.
    """

    images: int | None = setting(20_000, **at_least(1))
    rounds: int = setting(1, **at_least(1))

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    @abstractmethod
    def characters(self) -> str:
        """Return the alphabet of the texts, in the order of a model's classes."""

    @abstractmethod
    def source(self, seed: int, *, color: bool = False) -> KeyedSource:
        """Return an endless series of images, gray arrays or in color."""

    def unseen(self) -> DrawConfig:
        """Return how the images are drawn that accuracy is measured on."""
        return self


@dataclass(frozen=True)
class LanguageModel:
    """An n-gram model of characters, with which a checkpoint of the package reads.

    Attributes:
        path: an ARPA file.
        weight: of its natural-log probabilities.
        bonus: added for each character, since a model of language prefers short texts.
    """

    path: Path
    weight: float
    bonus: float


@dataclass(frozen=True)
class Domain:
    """A kind of text.

    Attributes:
        name: of its sub-package, and in saved recipes.
        draw: how its images are drawn: a subclass of :class:`DrawConfig`.
        kind: returns what kind of text a text is, one of ``kinds``; None if it is not of this domain.
        kinds: names of the kinds, and what pictures call them.
        constraints: by their names, functions that make constraints on its texts.
        checkpoints: by their names, the models that come with the package.
        language: with which these read; None: they read greedily.
        second_look: the confidence below which these look again, see :class:`fastctc.crnn.Recognizer`; 0: never.
        former: by their former names, the names of checkpoints.
    """

    name: str
    draw: type[DrawConfig]
    kind: Callable[[str], str | None]
    kinds: Mapping[str, str]
    constraints: Mapping[str, Callable[[], Constraint]]
    checkpoints: Mapping[str, Path]
    language: LanguageModel | None = None
    second_look: float = 0.0
    former: Mapping[str, str] = field(default_factory=dict)


DOMAINS: dict[str, Domain] = {}
"""The registered domains by their names."""


def register(domain: Domain) -> None:
    """Add a domain to :data:`DOMAINS`."""
    DOMAINS[domain.name] = domain


def domain_of(texts: Sequence[str]) -> Domain | None:
    """Return the first domain that all texts belong to; None if there is none, or no text."""
    for domain in DOMAINS.values():
        if texts and all(domain.kind(text) is not None for text in texts):
            return domain
    return None


def shipped_checkpoints() -> dict[str, Path]:
    """Return the models that come with the package, by their names."""
    return {name: path for domain in DOMAINS.values() for name, path in domain.checkpoints.items()}


def shipped_checkpoint(name: str | Path) -> Path | None:
    """Return the file of a model that comes with the package, by its name of today or a former one, or None."""
    former = {old: new for domain in DOMAINS.values() for old, new in domain.former.items()}
    return shipped_checkpoints().get(former.get(str(name), str(name)))


def shipped_domain(checkpoint: str | Path) -> Domain | None:
    """Return the domain of a checkpoint that comes with the package, given by name; None for any other."""
    found = [domain for domain in DOMAINS.values() if str(checkpoint) in domain.checkpoints]
    return found[0] if found else None


def constraints() -> dict[str, Callable[[], Constraint]]:
    """Return what makes each constraint that has a name."""
    return {name: make for domain in DOMAINS.values() for name, make in domain.constraints.items()}


def draw_to_dict(draw: DrawConfig) -> dict[str, Any]:
    """Return the settings of drawing as they are saved, with the domain's name."""
    (name,) = (domain.name for domain in DOMAINS.values() if domain.draw is type(draw))
    return {"domain": name, **asdict(draw)}


def draw_from_dict(saved: Mapping[str, Any]) -> DrawConfig:
    """Return the settings of drawing from what :func:`draw_to_dict` returned.

    Raises:
        ValueError: a domain or a setting that is not known.
    """
    name = saved["domain"]
    if name not in DOMAINS:
        raise ValueError(f"domain is {name!r}, expected one of {', '.join(map(repr, DOMAINS))}")
    kind, settings = DOMAINS[name].draw, {key: value for key, value in saved.items() if key != "domain"}
    unknown = sorted(settings.keys() - {each.name for each in fields(kind)})
    if unknown:
        raise ValueError(f"settings that this version of fastctc lacks: {', '.join(unknown)}")
    return kind(**settings)
