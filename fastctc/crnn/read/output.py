"""A file of readings that a killed run can go on with, and that several processes write together.

::

    texts.tsv.parts/job.json           what the readings depend on: images, model, settings
    texts.tsv.parts/part-000000.jsonl  the readings of images 0 to 1023
    texts.tsv.parts/part-000001.jsonl  the next 1024, and so on
    texts.tsv.parts/process-0/         claimed by the process that writes parts
    texts.tsv                          all parts, when they are there

A part is whole or not there. The images of a batch depend on their numbers alone, so a part has the same bytes in
every run. Process r of n, as ``torchrun`` starts them, writes the parts r, r + n, r + 2n ... The first one joins
them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from fastctc import __version__
from fastctc.crnn.data import Constraint, Entry, Inputs, claimed, to_json, write_atomically
from fastctc.crnn.read.decoding import Scorers
from fastctc.crnn.read.formats import Row, row_of, writer_for
from fastctc.crnn.read.recognize import Recognizer
from fastctc.crnn.read.stream import read_entries, workers_for

log = logging.getLogger(__name__)

PART = 1024  # images of a part, at least; a whole number of windows
BATCHES = 8  # batches of a window, see read_entries
_SECONDS = 30.0  # between messages of a process that waits


@dataclass(frozen=True)
class Written:
    """The rows of a file of readings.

    Attributes:
        count: images, each with a row.
        failed: images without a text, whose rows have an error.
    """

    count: int
    failed: int


def write_readings(
    recognizer: Recognizer,
    images: Iterable[str | Path],
    path: str | Path,
    *,
    batch_size: int = 64,
    beam_size: int | None = None,
    nbest: int = 1,
    constraint: Constraint | None = None,
    scorer: Scorers | None = None,
    min_confidence: float = 0.0,
    model_scores: bool = False,
    workers: int | None = None,
    settings: Mapping[str, Any] | None = None,
    on_progress: Callable[[int], object] = lambda done: None,
) -> Written | None:
    """Read images into a file; the same call goes on with what a killed one has left.

    The file has the same bytes however often the run was killed, and for any number of processes. Memory does not
    grow with the number of images.

    Args:
        recognizer: reads.
        images: names of files, folders, containers and patterns, see :class:`fastctc.crnn.data.Inputs`.
        path: the file to write: ``.tsv``, ``.jsonl`` or ``.parquet``. Parts are kept beside it, in ``path.parts``.
        batch_size: images that go through the model together.
        beam_size: see :meth:`fastctc.crnn.Recognizer.read`, as for ``nbest``, ``constraint`` and ``scorer``.
        nbest: hypotheses of each image.
        constraint: which texts are allowed; None: all.
        scorer: what weighs texts; None: nothing.
        min_confidence: a text of a lower confidence is not written.
        model_scores: write the weights of scorers too.
        workers: processes that decode images; 0: this one does; None: one for each CPU if they are worth it.
        settings: JSON of what else the readings depend on, such as the files of ``scorer``.
        on_progress: called with the number of images read since the last call.

    Returns:
        The number of rows; None in a process that is not the first of several.

    Raises:
        FileExistsError: ``path`` is there already.
        ValueError: ``path`` has another ending, an option is out of range, or the parts belong to another call.
        FolderInUseError: another process writes the file.
        ModuleNotFoundError: a package for the format or for a container is missing.
    """
    path, inputs = Path(path), Inputs(images)
    write = writer_for(path, nbest)
    decoder = recognizer.decoder(beam_size=beam_size, nbest=nbest, constraint=constraint, scorer=scorer)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected at least 1")
    job = {
        "fastctc": __version__, "images": _digest(inputs.fingerprint()), "model": _digest_of_model(recognizer),
        "device": recognizer.device.type, "precision": recognizer.precision, "ignore_case": recognizer.ignore_case,
        "second_look": recognizer.second_look, "batch_size": batch_size, "beam_size": beam_size, "nbest": nbest,
        "min_confidence": min_confidence,
        "model_scores": model_scores, **(settings or {}),
    }  # fmt: skip
    parts = _Parts(path, json.loads(to_json(job)), batch_size)
    if not parts.begin():
        return parts.written() if parts.process == 0 else None
    with claimed(parts.folder / f"process-{parts.process}"):
        if parts.process == 0:
            parts.describe()
        read = read_entries(
            recognizer, parts.missing(inputs), decoder, batch_size=batch_size, batches=BATCHES,
            workers=workers_for(inputs) if workers is None else workers,
        )  # fmt: skip
        rows = (
            row_of(name, reading, min_confidence=min_confidence, model_scores=model_scores)
            for name, reading in read
        )
        parts.write(rows, on_progress)
        if parts.process > 0:
            return None
        parts.join(write)
    return parts.written()


@dataclass
class _Parts:
    """The parts of a file, in a folder beside it."""

    path: Path
    job: dict[str, Any]
    batch_size: int

    def __post_init__(self) -> None:
        self.folder = self.path.with_name(f"{self.path.name}.parts")
        self.process, self.processes = (int(os.environ.get(name, one)) for name, one in _VARIABLES)
        window = BATCHES * self.batch_size
        self.size = window * max(1, PART // window)
        self.todo: list[int] = []  # parts of this process, in the order of their writing
        self.count = 0  # images

    def part(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.jsonl"

    def begin(self) -> bool:
        """Return True if there is something to write; False if the file is whole.

        Processes other than the first wait until the first has begun.
        """
        waiting = _Patience(f"for the first process to begin {self.path}")
        while True:
            if self.path.exists():
                if self.process == 0 and not (self._matches() and self._summary.exists()):
                    raise FileExistsError(
                        f"output is {self.path}, which exists already: delete it, or choose another name"
                    )
                return False
            if self._matches() or self.process == 0:
                return True
            waiting.wait()

    def _matches(self) -> bool:
        """Return True if the parts are of this job, False if there are none; ValueError if they are of another."""
        try:
            other = json.loads((self.folder / "job.json").read_bytes())
        except FileNotFoundError:
            return False
        different = sorted(name for name in {*other, *self.job} if other.get(name) != self.job.get(name))
        if different:
            raise ValueError(
                f"{self.folder} has parts of a run with other {', '.join(different)}: repeat the command of that"
                " run, or delete the folder"
            )
        return True

    def describe(self) -> None:
        """Write what the parts depend on, unless it is there."""
        if not self._matches():
            write_atomically(self.folder / "job.json", to_json(self.job).encode())

    def missing(self, inputs: Inputs) -> Iterator[Entry]:
        """Yield the images of the parts that this process has to write."""

        done = {int(each.stem.partition("-")[2]) for each in self.folder.glob("part-*.jsonl")}

        def is_missing(number: int) -> bool:
            part = number // self.size
            return part % self.processes == self.process and part not in done

        for number, entry in enumerate(inputs.entries(is_missing)):
            self.count = number + 1
            if is_missing(number):
                if self.todo[-1:] != [number // self.size]:
                    self.todo.append(number // self.size)
                yield entry

    def write(self, rows: Iterator[Row], on_progress: Callable[[int], object]) -> None:
        """Write the rows of this process in parts."""
        for written, part in enumerate(iter(lambda: list(islice(rows, self.size)), [])):
            lines = "".join(f"{to_json(row)}\n" for row in part)
            write_atomically(self.part(self.todo[written]), lines.encode())
            on_progress(len(part))

    def join(self, write: Callable[[Path, Iterator[Row]], None]) -> None:
        """Write the file from all parts, when the other processes have written theirs."""
        waiting = _Patience(f"for other processes to write their parts of {self.path}")
        for number in range(-(-self.count // self.size)):
            while not self.part(number).exists():
                waiting.wait()
        failed = 0

        def rows() -> Iterator[Row]:
            nonlocal failed
            for number in range(-(-self.count // self.size)):
                with self.part(number).open("rb") as lines:
                    for line in lines:
                        row: Row = json.loads(line)
                        failed += row["text"] is None
                        yield row

        joined = self.folder / f"joined{self.path.suffix}"
        write_atomically(joined, lambda temporary: write(temporary, rows()))
        write_atomically(self._summary, to_json(asdict(Written(self.count, failed))).encode())
        os.replace(joined, self.path)

    @property
    def _summary(self) -> Path:
        return self.folder / "summary.json"

    def written(self) -> Written:
        """Return the number of rows of the whole file, and delete its parts."""
        written = Written(**json.loads(self._summary.read_bytes()))
        for part in self.folder.glob("part-*.jsonl"):
            part.unlink(missing_ok=True)
        for name in ("summary.json", "job.json"):  # without these, the file is one that exists already
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        return written


_VARIABLES = (("RANK", "0"), ("WORLD_SIZE", "1"))  # set by torchrun


class _Patience:
    """Waiting for other processes, with a message now and then."""

    def __init__(self, what: str) -> None:
        self.what, self.told = what, time.monotonic()

    def wait(self) -> None:
        """Wait for a moment."""
        if time.monotonic() - self.told > _SECONDS:
            log.info("waiting %s", self.what)
            self.told = time.monotonic()
        time.sleep(0.1)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _digest_of_model(recognizer: Recognizer) -> str:
    """Return a hash of all that a checkpoint's readings depend on."""
    content = hashlib.sha256()
    for name, tensor in recognizer.checkpoint.model.state_dict().items():
        content.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    alphabet, model = recognizer.alphabet, recognizer.checkpoint.model
    about = [alphabet.characters, alphabet.blank, asdict(recognizer.preprocess), asdict(model.config)]
    content.update(json.dumps(about).encode())
    return content.hexdigest()[:16]
