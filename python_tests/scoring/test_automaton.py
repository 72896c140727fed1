"""The automaton as a value: its weights, its checks, its file."""

from __future__ import annotations

import copy
import json
import math
import pickle
from pathlib import Path

import pytest
import torch
from automata import quick_score, random_automaton, sequences, walk, walk_score

from fastctc import Automaton
from fastctc.scoring import OTHERWISE, REJECTED, AutomatonScorer

INF = math.inf


def small() -> Automaton:
    arcs = [(0, 1, 1, -0.5), (0, OTHERWISE, 0, 0.25), (1, 2, 2, 1.0), (1, 1, 1, -INF), (2, 7, 0, 0.0)]
    failure = {1: (0, -0.125), 2: (1, 0.5)}
    return Automaton.from_arcs(arcs, {0: 0.0, 2: 0.75}, failure=failure, symbols=["-", "a", "b"])


@pytest.mark.parametrize("seed", range(200))
def test_random_automata_equal_the_naive_walk(seed: int) -> None:
    labels = [1, 2, 5]
    automaton = random_automaton(seed, labels)
    states = torch.arange(-1, automaton.num_states)
    tried = torch.tensor([*labels, 0, 9])
    nexts, weights = automaton.step(states[:, None], tried)
    expected = [[walk(automaton, state, label) for label in tried.tolist()] for state in states.tolist()]
    assert [list(zip(*row)) for row in zip(nexts.tolist(), weights.tolist())] == expected
    scorer = AutomatonScorer(automaton)
    for sequence in sequences(labels, 2):
        expected_score = walk_score(automaton, sequence)
        assert automaton.score(sequence) == expected_score
        assert quick_score(scorer, sequence) == expected_score
    for state, largest in enumerate(automaton.largest_weight.tolist()):
        assert all(weight <= largest for _, weight in expected[state + 1])


def test_random_automata_accept_and_reject() -> None:
    scores = [random_automaton(seed, [1, 2]).score([1, 2, 1]) for seed in range(100)]
    assert 10 < sum(score > -INF for score in scores) < 90
    assert any(score > 0 for score in scores)


def test_the_largest_weight_is_never_rounded_downwards() -> None:
    """Of a sum through a failure arc, which float32 does not hold exactly."""
    arcs = [(0, 1, 0, 1.0), (1, 2, 1, -5.0), (2, 2, 1, -5.0)]
    failure = {1: (0, 2.0**-25), 2: (1, -(2.0**-26))}
    automaton = Automaton.from_arcs(arcs, {0: 0.0}, failure=failure)
    _, weights = automaton.step(torch.arange(3), torch.tensor(1))
    assert (automaton.largest_weight.double() >= weights).all()
    assert automaton.largest_weight[1] > 1.0


def test_a_long_chain_of_failure_arcs() -> None:
    states = 1000
    failure = {state: (state - 1, -1.0) for state in range(1, states)}
    automaton = Automaton.from_arcs([(0, 4, 0, 0.5)], {0: 0.0}, start=states - 1, failure=failure)
    assert automaton.score([4]) == 0.5 - (states - 1)
    assert automaton.largest_weight[-1] == 0.5 - (states - 1)


def test_a_state_without_arcs() -> None:
    automaton = Automaton.from_arcs([], {0: -0.5})
    assert (automaton.num_states, automaton.num_arcs) == (1, 0)
    assert automaton.score([]) == -0.5
    assert automaton.score([3]) == -INF
    assert automaton.largest_weight.tolist() == [-INF]


def test_rejected_stays_rejected() -> None:
    nexts, weights = small().step(torch.tensor([REJECTED, 1]), torch.tensor([2, 1]))
    assert nexts.tolist() == [REJECTED, REJECTED]  # no such state; an arc with weight -inf
    assert weights.tolist() == [-INF, -INF]
    assert small().final(torch.tensor([REJECTED, 0, 1, 2])).tolist() == [-INF, 0.0, -INF, 0.75]


def test_steps_out_of_range_are_named() -> None:
    for state in (-2, 3):
        with pytest.raises(ValueError, match=rf"states\[1\] is {state}, expected a number in \[-1, 3\)"):
            small().step(torch.tensor([0, state]), torch.tensor(1))
    with pytest.raises(ValueError, match=r"labels\[0\] is -1, expected at least 0"):
        small().score([1, OTHERWISE])


def test_scaled() -> None:
    automaton, scaled = small(), small().scaled(0.5, label_bonus=2.0)
    for sequence in sequences([1, 2, 3], 3):
        expected = automaton.score(sequence) * 0.5 + 2.0 * len(sequence)
        assert scaled.score(sequence) == expected
    nothing = automaton.scaled(0)
    assert {nothing.score(each) for each in sequences([1, 2, 3], 3)} == {0.0, -INF}


@pytest.mark.parametrize("scale", [-1.0, INF, math.nan])
def test_scaled_names_the_scale(scale: float) -> None:
    with pytest.raises(ValueError, match=rf"scale is {scale}, expected a finite number of at least 0"):
        small().scaled(scale)


def copies(automaton: Automaton, folder: Path) -> dict[str, Automaton]:
    automaton.save(folder / "a.fst")
    torch.save({"lm": automaton}, folder / "a.pt")
    loaded = Automaton.load(folder / "a.fst")
    return {
        "pickle": pickle.loads(pickle.dumps(automaton)),
        "deepcopy": copy.deepcopy(automaton),
        "file": loaded,
        "pickle of a mapped file": pickle.loads(pickle.dumps(loaded)),
        "torch.save": torch.load(folder / "a.pt")["lm"],
        "to": automaton.to("cpu"),
    }


@pytest.mark.parametrize("seed", range(5))
def test_copies_are_equal(seed: int, tmp_path: Path) -> None:
    automaton = random_automaton(seed, range(20), states=50)
    for way, made in copies(automaton, tmp_path).items():
        assert made == automaton, way
        assert made.score([1, 2, 3]) == automaton.score([1, 2, 3]), way
    for way, made in copies(small(), tmp_path).items():
        assert made == small() and made.symbols == ("-", "a", "b"), way


def test_equality_sees_every_part() -> None:
    def different() -> list[Automaton]:
        arcs, final = [(0, 1, 1, 0.0)], {0: 0.0, 1: 0.0}
        return [
            Automaton.from_arcs(arcs, final),
            Automaton.from_arcs(arcs, final, start=1),
            Automaton.from_arcs(arcs, final, symbols=["", "a"]),
            Automaton.from_arcs(arcs, {0: 0.0, 1: 0.5}),
            Automaton.from_arcs([(0, 1, 1, 0.5)], final),
            Automaton.from_arcs([(0, 2, 1, 0.0)], final),
            Automaton.from_arcs([(0, 1, 0, 0.0)], final),
            Automaton.from_arcs([(1, 1, 1, 0.0)], final),
            Automaton.from_arcs(arcs, final, failure={1: (0, 0.0)}),
            Automaton.from_arcs(arcs, final, failure={1: (0, 0.5)}),
        ]

    for i, a in enumerate(different()):
        for j, b in enumerate(different()):
            assert (a == b) == (i == j)
    assert small() != "small"
    with pytest.raises(TypeError, match="unhashable"):
        hash(small())


def test_equal_automata_give_equal_bytes(tmp_path: Path) -> None:
    arcs = [(0, 1, 1, -0.5), (0, 2, 0, 0.25), (1, 2, 0, 1.0)]
    for name, order in (("a", arcs), ("b", arcs[::-1])):
        Automaton.from_arcs(order, {0: 0.0}, symbols=["é", "b", "c"]).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    Automaton.load(tmp_path / "a").save(tmp_path / "a")  # over the file that is mapped
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_file_is_a_safetensors_file(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    small().save(tmp_path / "a.safetensors")
    tensors = safetensors.load_file(tmp_path / "a.safetensors")
    assert bytes(tensors.pop("symbols").tolist()) == b"-\0a\0b\0"
    assert {*tensors} == {*small().tensors()}
    assert all(torch.equal(each, small().tensors()[name]) for name, each in tensors.items())


def test_a_failed_save_leaves_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small().save(tmp_path / "a")
    before = (tmp_path / "a").read_bytes()
    monkeypatch.setattr("fastctc.scoring.automaton_file._memory", lambda tensor: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        random_automaton(0, [1]).save(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    """Cut at every length, and with every tensor's numbers out of range."""
    path = tmp_path / "a"
    small().save(path)
    whole = path.read_bytes()
    length = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:length])
    for size in [*range(0, length, 7), *range(length, len(whole))]:
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="is no saved automaton"):
            Automaton.load(path)
    for name in ("first_arc", "label", "next_state", "failure_state"):
        begin = length + header[name]["data_offsets"][0]
        for number in (-2, 1 << 30):
            if name == "label" and number > 0:
                continue  # any label is one
            path.write_bytes(whole[:begin] + number.to_bytes(4, "little", signed=True) + whole[begin + 4 :])
            with pytest.raises(ValueError, match=name):
                Automaton.load(path)
    path.write_bytes(whole.replace(b"Automaton 1", b"Automaton 2"))
    with pytest.raises(ValueError, match=r"its format is 'fastctc\.Automaton 2', expected"):
        Automaton.load(path)


def test_repr() -> None:
    assert repr(small()) == "Automaton(states=3, arcs=5, start=0, symbols=3, device='cpu', megabytes=0.0)"


def test_the_device_of_cuda(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    moved = small().to("cuda")
    assert moved.device.type == "cuda" and moved == small() and small() == moved
    assert moved.score([1, 2]) == small().score([1, 2])
    moved.save(tmp_path / "a")
    assert Automaton.load(tmp_path / "a", "cuda") == small()


FAULTS = {
    "two arcs": ([(0, 1, 0, 0.0), (0, 1, 1, 0.0)], {}, "state 0 has two arcs with label 1"),
    "nan": (
        [(0, 1, 2, math.nan)],
        {},
        r"weight\[0\] is nan, the weight of the arc from state 0 to 2 with label 1",
    ),
    "+inf": (
        [(0, 1, 0, 0.0), (1, 5, 0, INF)],
        {},
        r"weight\[1\] is inf, the weight of the arc from state 1 to 0 ",
    ),
    "failure nan": ([], {1: (0, math.nan)}, r"failure_weight\[1\] is nan, the weight of state 1"),
    "circle": ([], {1: (2, 0.0), 2: (3, 0.0), 3: (1, 0.0)}, "failure arcs go in a circle: .* -> "),
    "to itself": ([], {1: (1, 0.0)}, "failure arcs go in a circle: 1 -> 1"),
    "label": ([(0, -2, 0, 0.0)], {}, r"label\[0\] is -2, expected at least -1"),
    "state": ([(-1, 1, 0, 0.0)], {}, "there is a state -1, expected states to be 0 or more"),
    "next": ([(0, 1, -4, 0.0)], {}, "there is a state -4, expected states to be 0 or more"),
    "both": ([(1, -1, 0, 0.0)], {1: (0, 0.0)}, "state 1 has an arc for all other labels, so its failure arc"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_arcs_are_named(fault: str) -> None:
    arcs, failure, message = FAULTS[fault]
    with pytest.raises(ValueError, match=message):
        Automaton.from_arcs(arcs, {0: 0.0}, failure=failure)


@pytest.mark.parametrize("weight", [math.nan, INF])
def test_faults_of_final_weights_are_named(weight: float) -> None:
    with pytest.raises(ValueError, match=rf"final_weight\[2\] is {weight}, the weight of state 2"):
        Automaton.from_arcs([], {2: weight})


def test_faults_of_tensors_are_named() -> None:
    good = {name: each for name, each in small().tensors().items() if name != "largest_weight"}
    for name in good:
        with pytest.raises(
            TypeError, match=f"{name} must be a tensor of torch.(int32|float32), got torch.float64"
        ):
            Automaton.from_tensors(**{**good, name: good[name].double()})
        with pytest.raises(ValueError, match=f"{name} must have one dimension"):
            Automaton.from_tensors(**{**good, name: good[name][None]})
        with pytest.raises(
            ValueError, match=r"has \d values, expected \d|first_arc goes from|failure_state is empty"
        ):
            Automaton.from_tensors(**{**good, name: good[name][:-1]})
    with pytest.raises(ValueError, match=r"start is 3, expected a state in \[0, 3\)"):
        Automaton.from_tensors(**good, start=3)
    unsorted = good["label"].flip(0)
    with pytest.raises(ValueError, match=r"expected the labels of state . to increase"):
        Automaton.from_tensors(**{**good, "label": unsorted})
    with pytest.raises(ValueError, match=r"symbols\[1\] is .* expected no NUL"):
        Automaton.from_tensors(**good, symbols=["a", "\0"])
