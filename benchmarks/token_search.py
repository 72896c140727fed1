"""What a token 3-gram and 10,000 hotwords cost in a beam search, on the shapes of bench_beam_search.py."""

from __future__ import annotations

import importlib
import math
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

import fastctc
from beam_cases import BLANK, INPUTS, SHAPES, Shape, draw, statistics
from fastctc.scoring import Automaton, AutomatonScorer, beam_search_with_scorers, hotwords, read_arpa
from timing import Side, measure_cpu
from token_models import draw_hotwords, names, write_arpa
from word_checks import near

CANDIDATES = 50_000  # that the reference may look at

Row = dict[str, Any]


class FlashlightTokens:
    """flashlight-text without a lexicon, with KenLM: `log_add`, and as many tokens per frame as the beam has."""

    def __init__(self, shape: Shape, arpa: Path) -> None:
        decoder = importlib.import_module("flashlight.lib.text.decoder")
        dictionary = importlib.import_module("flashlight.lib.text.dictionary").Dictionary()
        for name in names(shape.C):
            dictionary.add_entry(name)
        kenlm = importlib.import_module("flashlight.lib.text.decoder.kenlm")
        options = decoder.LexiconFreeDecoderOptions(
            beam_size=shape.W,
            beam_size_token=min(shape.C, shape.W + 2),
            beam_threshold=1e9,
            lm_weight=math.log(10),  # its model counts in log10
            sil_score=0.0,
            log_add=True,
            criterion_type=decoder.CriterionType.CTC,
        )
        self.model = kenlm.KenLM(str(arpa), dictionary)  # the decoder keeps a bare pointer to it
        self.decoder = decoder.LexiconFreeDecoder(options, self.model, -1, BLANK, [])

    def __call__(self, log_probs: Tensor) -> list[Any]:
        return [self.decoder.decode(each.data_ptr(), *each.shape)[0].tokens for each in log_probs]


def search(log_probs: Tensor, shape: Shape, scorer: Automaton | None) -> Any:
    return fastctc.beam_search(log_probs, beam_size=shape.W, blank=BLANK, scorer=scorer).to_list()


def faults(log_probs: Tensor, shape: Shape, scorer: Automaton) -> list[str]:
    """Return the faults of fastctc's n-best on the first frames."""
    frames = max(2, min(shape.T, CANDIDATES // (shape.W * shape.C)))
    start = log_probs[0, :frames]
    expected = beam_search_with_scorers(start, [AutomatonScorer(scorer)], beam_size=shape.W, blank=BLANK)
    found = fastctc.beam_search(start, beam_size=shape.W, nbest=shape.W, blank=BLANK, scorer=scorer)
    same = [tuple(each) for each in found.to_list()] == [each.tokens for each in expected]
    if same and all(map(near, found.scores.tolist(), [each.score for each in expected])):
        return []
    return [f"the n-best of {frames} frames is not the reference's"]


def token_row(name: str, kind: str, arpa: Path, peers: list[str], seconds: float, quick: bool) -> Row:
    shape = SHAPES[name].quick() if quick else SHAPES[name]
    log_probs = draw(shape, kind)
    row: Row = {"shape": name, **asdict(shape), "input": kind, "statistics": statistics(log_probs)}
    row |= {"notes": [], "refused": False, "sides": {}}
    scorers: dict[str, Automaton | None] = {
        "none": None,
        "ngram": read_arpa(arpa, [None, *names(shape.C)[1:]]),
        "hotwords": hotwords(draw_hotwords(shape.C)),
    }
    for side, scorer in scorers.items():
        if scorer is not None:
            row["notes"] += [f"{side}: {fault}: not timed" for fault in faults(log_probs, shape, scorer)]
    if row["notes"]:
        return row | {"refused": True}
    sides = {
        side: Side(lambda _, scorer=scorer: search(log_probs, shape, scorer))  # type: ignore[misc]
        for side, scorer in scorers.items()
    }
    if "flashlight" in peers:
        decoder = FlashlightTokens(shape, arpa)
        sides["flashlight_ngram"] = Side(lambda _: decoder(log_probs))
    row["sides"] = measure_cpu(sides, seconds, quick)
    for side in row["sides"].values():
        side["frame_us"] = side["median_ms"] * 1e3 / (shape.N * shape.T)
    ours = row["sides"]["none"]["median_ms"]
    row["over_none"] = {side: row["sides"][side]["median_ms"] / ours for side in ("ngram", "hotwords")}
    return row


def token_rows(peers: dict[str, str], seconds: float, quick: bool) -> list[Row]:
    """Return a row per shape a, b and c, and kind of input."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in "a" if quick else "abc":
            shape = SHAPES[name].quick() if quick else SHAPES[name]
            arpa = Path(folder, f"{name}.arpa")
            write_arpa(arpa, shape.C)
            for kind in INPUTS:
                rows.append(token_row(name, kind, arpa, list(peers), seconds, quick))
    return rows
