"""Regular expressions over the characters or the tokens of a model, as automata that accept what they match."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from fastctc.scoring.automaton import OTHERWISE, Automaton
from fastctc.scoring.expression_parser import parse
from fastctc.scoring.finite_automaton import Transitions, determinize, minimize
from fastctc.scoring.ngram import token_words
from fastctc.text import Alphabet

__all__ = ["regular_expression"]


def regular_expression(
    pattern: str,
    tokens: Alphabet | Sequence[str | None],
    *,
    unit: str = "character",
    max_states: int = 10_000,
) -> Automaton:
    """Return the smallest automaton that accepts what a regular expression matches, as a whole, with the weight 0.

    The expression is matched against the text that the tokens spell, as ``re.fullmatch`` does it. It may contain:

    - characters, ``.``, classes such as ``[a-f_]`` and ``[^,]``, and the escapes ``\\d \\w \\s \\D \\W \\S``,
      with the meaning that they have in Python's ``re``; a backslash before a character that is no letter or digit;
    - ``*``, ``+``, ``?``, ``{m}``, ``{m,}``, ``{,n}`` and ``{m,n}`` behind one of them or a group;
    - ``|``, and the groups ``(...)`` and ``(?:...)``.

    Anchors, lazy quantifiers, look-around, back references and flags are refused.

    With ``unit="token"`` the expression is matched against the sequence of tokens. Instead of characters it
    contains names of tokens, separated by blanks, as in ``(HH (AH | EH))+ .``. Classes are ``[AH EH]`` and
    ``[^AH EH]``.

    Args:
        pattern: the expression.
        tokens: an :class:`fastctc.Alphabet`, or the text of each class of a model in order, of any length, or None
            for a class that is rejected, such as the blank.
        unit: "character" or "token", what the elements of the expression stand for.
        max_states: the expression is refused if an automaton on the way is larger.

    Raises:
        ValueError: the expression is malformed or uses what is not supported; the message gives the position. Or no
            sequence of tokens matches, or there are more than ``max_states`` states.

    >>> from fastctc import Alphabet
    >>> digits = Alphabet("0123456789.")
    >>> price = regular_expression(r"\\d+\\.\\d{2}", digits)
    >>> price.score(digits.encode("12.50")), price.score(digits.encode("12.5"))
    (0.0, -inf)
    """
    if not isinstance(pattern, str):
        raise TypeError(f"pattern must be a str, got {type(pattern).__name__}")
    if isinstance(max_states, bool) or not isinstance(max_states, int) or max_states < 1:
        raise ValueError(f"max_states is {max_states!r}, expected an int of at least 1")
    if unit not in ("character", "token"):
        raise ValueError(f'unit is {unit!r}, expected "character" or "token"')
    words = token_words(tokens)
    texts = [word or None for word in words]  # an empty text would be matched any number of times
    symbols = sorted(
        {each for text in texts if text is not None for each in (text if unit == "character" else [text])}
    )
    tree = parse(pattern, symbols, by_character=unit == "character")
    by_symbol, symbol_class = determinize(tree, len(symbols), max_states)
    number = {symbol: symbol_class[i] for i, symbol in enumerate(symbols)}

    # Tokens with the same classes of symbols lead to the same states.
    spelled: dict[tuple[int, ...], list[int]] = {}
    for label, text in enumerate(texts):
        if text is not None:
            spelling = tuple(number[each] for each in (text if unit == "character" else [text]))
            spelled.setdefault(spelling, []).append(label)
    by_token = Transitions(
        [[by_symbol.run(state, spelling) for spelling in spelled] for state in range(len(by_symbol.next))],
        by_symbol.accepting,
    )
    smallest = minimize(by_token)
    if smallest is None:
        raise ValueError(f"pattern {pattern!r} matches no sequence of tokens")
    return _automaton(smallest, list(spelled.values()), ["" if each is None else each for each in words])


def _automaton(machine: Transitions, labels: list[list[int]], symbols: list[str]) -> Automaton:
    """Return the automaton of a machine over classes of labels. State 0 is the start."""
    first_arc, arcs = [0], []
    for targets in machine.next:
        arcs += _arcs(targets, labels, len(symbols))
        first_arc.append(len(arcs))
    rows = torch.tensor(arcs, dtype=torch.int32).reshape(-1, 2)
    rejected = rows[:, 1] < 0
    states = len(machine.next)
    return Automaton.from_tensors(
        first_arc=torch.tensor(first_arc, dtype=torch.int32),
        label=rows[:, 0].contiguous(),
        next_state=rows[:, 1].clamp(min=0),
        weight=torch.zeros(len(arcs)).masked_fill(rejected, -math.inf),
        failure_state=torch.full((states,), -1, dtype=torch.int32),
        failure_weight=torch.zeros(states),
        final_weight=torch.where(torch.tensor(machine.accepting), 0.0, -math.inf),
        symbols=symbols,
    )


def _arcs(targets: list[int], labels: list[list[int]], count: int) -> list[tuple[int, int]]:
    """Return (label, next state) of the arcs of a state, sorted; -1 forbids a label.

    If most labels lead to one state, an arc for all others goes there.
    """
    by_target: dict[int, list[int]] = {}
    for target, each in zip(targets, labels):
        by_target.setdefault(target, []).extend(each)
    by_target.pop(-1, None)
    if not by_target:
        return []
    usual = max(by_target, key=lambda target: (len(by_target[target]), -target))
    arcs = [(label, target) for target, each in by_target.items() for label in each]
    if 2 * len(by_target[usual]) > count:
        allowed = {label for label, _ in arcs}
        arcs = [(label, target) for label, target in arcs if target != usual]
        arcs += [(label, -1) for label in range(count) if label not in allowed]
        arcs.append((OTHERWISE, usual))
    return sorted(arcs)
