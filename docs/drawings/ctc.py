"""Drawings of CTC itself: frames, the rule that collapses them, the lattice, the beam."""

from __future__ import annotations

import itertools

import torch

import fastctc
from drawings.svg import Sheet


def collapsing() -> Sheet:
    """Draw how a path of twelve frames becomes a word: repeats merge, then blanks go."""
    path = "hh-e-lll-llo"
    sheet = Sheet(720, 190)
    step, left = 44, 30
    for y, name in ((36, "a class per frame"), (108, "equal neighbors merge"), (166, "blanks are dropped")):
        sheet.text(left + 11.6 * step, y, name, "muted", 14, "start")
    x = left
    for character, run in itertools.groupby(path):
        count, blank = len(list(run)), character == "-"
        name, kind = ("–", "muted") if blank else (character, "mono")
        center = x + (count - 1) * step / 2
        for i in range(count):
            sheet.rect(x + i * step - 16, 14, 32, 34, "soft" if blank else "card")
            sheet.text(x + i * step, 37, name, kind, 19)
            sheet.line(x + i * step, 50, center, 84, "thin" if blank else "line")
        sheet.rect(center - 16, 86, 32, 34, "soft" if blank else "card")
        sheet.text(center, 109, name, kind, 19)
        if not blank:
            sheet.arrow(center, 122, center, 146)
            sheet.text(center, 169, character, "mono accent", 22)
        x += count * step
    return sheet


# The two labels of the lattice, its frames, and log-probabilities of (blank, a, b) that make a clear picture.
LATTICE = torch.tensor(
    [[0.5, 0.4, 0.1], [0.2, 0.7, 0.1], [0.5, 0.3, 0.2], [0.3, 0.1, 0.6], [0.6, 0.1, 0.3]]
).log()


def lattice(*, weighed: bool = False) -> Sheet:
    """Draw the lattice of the target ``ab`` in five frames.

    Args:
        weighed: show how probable each state is, from :func:`fastctc.ctc_posteriors`; else the most probable path.
    """
    rows, frames = ["–", "a", "–", "b", "–"], len(LATTICE)
    left, top, dx, dy = 96, 40, 100, 52
    sheet = Sheet(left + dx * (frames - 1) + 60, top + dy * 4 + 56)

    def place(t: int, state: int) -> tuple[float, float]:
        return left + t * dx, top + state * dy

    paths = [
        path
        for path in itertools.product(range(5), repeat=frames)
        if path[0] <= 1 and path[-1] >= 3 and all(is_arc(a, b) for a, b in itertools.pairwise(path))
    ]
    used = {(t, *arc) for path in paths for t, arc in enumerate(itertools.pairwise(path))}
    states = {(t, state) for path in paths for t, state in enumerate(path)}
    classes = [0, 1, 0, 2, 0]
    best = max(paths, key=lambda path: sum(LATTICE[t, classes[s]].item() for t, s in enumerate(path)))
    for t, a, b in sorted(used):
        (x1, y1), (x2, y2) = place(t, a), place(t + 1, b)
        length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
        ux, uy = (x2 - x1) / length, (y2 - y1) / length
        chosen = not weighed and (a, b) == best[t : t + 2]
        sheet.arrow(x1 + 19 * ux, y1 + 19 * uy, x2 - 20 * ux, y2 - 20 * uy, "bold" if chosen else "line", 6)
    weights = occupancies(paths) if weighed else None
    for t, state in itertools.product(range(frames), range(5)):
        x, y = place(t, state)
        reachable = (t, state) in states
        sheet.circle(x, y, 17, "card" if reachable else "thin")
        if weights is not None and reachable:
            sheet.circle(x, y, 17, "on", 0.65 * weights[t][state])
            sheet.text(x, y + 4.5, f"{100 * weights[t][state]:.0f}", "", 12)
        elif reachable:
            sheet.text(x, y + 5, rows[state], "mono" if state % 2 else "muted", 15)
    for state, name in enumerate(rows):
        sheet.text(left - 50, top + state * dy + 5, name, "mono" if state % 2 else "muted", 17)
    for t in range(frames):
        sheet.text(left + t * dx, top + 4 * dy + 42, f"frame {t}", "muted", 13)
    return sheet


def is_arc(a: int, b: int) -> bool:
    """Return True if a path may go from state a to state b: stay, go on, or pass over a blank."""
    return b in (a, a + 1) or (b == a + 2 and b % 2 == 1)


def occupancies(paths: list[tuple[int, ...]]) -> list[list[float]]:
    """Return the probability of each state in each frame, given the target, from all of its paths."""
    classes = [0, 1, 0, 2, 0]
    weights = [[0.0] * 5 for _ in LATTICE]
    total = 0.0
    for path in paths:
        p = float(torch.stack([LATTICE[t, classes[s]] for t, s in enumerate(path)]).sum().exp())
        total += p
        for t, state in enumerate(path):
            weights[t][state] += p
    loss = fastctc.ctc_loss(LATTICE[:, None], torch.tensor([[1, 2]]), [len(LATTICE)], [2], reduction="none")
    assert abs(total - float((-loss).exp())) < 1e-6, "the lattice and the loss disagree"
    return [[w / total for w in row] for row in weights]


def lattice_weighed() -> Sheet:
    """Draw the lattice with the probability of each state."""
    return lattice(weighed=True)


BEAM = torch.tensor([[0.5, 0.3, 0.2], [0.45, 0.35, 0.2], [0.55, 0.25, 0.2]])  # blank, a, b

Prefixes = dict[
    str, tuple[float, float]
]  # the probability of paths that end in the blank, and in the last token


def candidates(before: Prefixes, frame: list[float]) -> Prefixes:
    """Return every prefix that a frame makes of a beam, with the paths that spell it merged."""
    after: Prefixes = {}

    def add(prefix: str, blank: float, label: float) -> None:
        old = after.get(prefix, (0.0, 0.0))
        if blank + label > 0:
            after[prefix] = (old[0] + blank, old[1] + label)

    for prefix, (blank, label) in before.items():
        add(prefix, (blank + label) * frame[0], 0.0)
        for token, p in zip("ab", frame[1:], strict=True):
            repeated = prefix.endswith(token)
            if repeated:
                add(prefix, 0.0, label * p)
            add(prefix + token, 0.0, (blank if repeated else blank + label) * p)
    return after


def beam() -> Sheet:
    """Draw three frames of a prefix beam search with room for three prefixes."""
    size, spacing = 3, 205
    sheet = Sheet(740, 372)
    beam: Prefixes = {"": (1.0, 0.0)}
    places = {"": 158.0}
    sheet.text(60, 24, "start", "muted", 13)
    card(sheet, 60, 158.0, "", 1.0, True)
    for t, frame in enumerate(BEAM.tolist()):
        x = 60 + spacing * (t + 1)
        sheet.text(x, 24, f"after frame {t}", "muted", 13)
        found = candidates(beam, frame)
        ranked = sorted(found, key=lambda prefix: -sum(found[prefix]))
        after = {prefix: 58 + rank * 50.0 for rank, prefix in enumerate(ranked)}
        for rank, prefix in enumerate(ranked):
            kept = rank < size
            for source in {prefix, prefix[:-1]} & places.keys():
                sheet.line(
                    x - spacing + 50, places[source], x - 50, after[prefix], "line" if kept else "thin"
                )
            card(sheet, x, after[prefix], prefix, sum(found[prefix]), kept)
        beam = {prefix: found[prefix] for prefix in ranked[:size]}
        places = {prefix: after[prefix] for prefix in beam}
    check_beam(beam, size)
    return sheet


def check_beam(beam: Prefixes, size: int) -> None:
    """Compare a beam with the result of :func:`fastctc.beam_search`."""
    result = fastctc.beam_search(BEAM.log(), beam_size=size, nbest=size)
    assert result.to_text("-ab") == list(beam), "the drawing and the beam search disagree"
    for score, paths in zip(result.scores.exp().tolist(), beam.values(), strict=True):
        assert abs(score - sum(paths)) < 1e-6, "the drawing and the beam search disagree"


def card(sheet: Sheet, x: float, y: float, prefix: str, p: float, kept: bool) -> None:
    """Draw a prefix and its probability."""
    name = prefix or "∅"
    sheet.rect(x - 50, y - 18, 100, 36, "card" if kept else "thin")
    sheet.text(x - 38, y + 5, name, "mono" if kept else "mono muted", 15, "start")
    sheet.text(x + 40, y + 5, f"{p:.3f}", "accent" if kept else "muted", 13, "end")
