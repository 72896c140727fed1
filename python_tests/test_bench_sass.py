"""benchmarks/sass parses listings, finds and simulates loops, and reports what is worse. No compiler is needed."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from benchmark_files import BENCHMARKS, Load

SASS = BENCHMARKS / "sass"


@pytest.fixture
def sass(load: Load, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    monkeypatch.syspath_prepend(str(SASS))
    yield load


def encoded(
    text: str, stall: int = 1, write: int = 7, read: int = 7, waits: tuple[int, ...] = (), address: int = 0
) -> str:
    """Return the two lines that nvdisasm prints of an instruction."""
    bits = stall | write << 5 | read << 8 | sum(1 << each for each in waits) << 11
    first = f"        /*{address:04x}*/                   {text} ;  /* 0x0000000000000000 */"
    return f"{first}\n{'':60}/* 0x{bits << 41:016x} */"


def kernel(sass: Load, *lines: str) -> Any:
    """Return a kernel; a line is a label, an instruction, or an instruction as `encoded` gives it."""
    text = [each if "\n" in each or each.startswith(".L") else encoded(each) for each in lines]
    (found,) = sass("listing").parse("\n".join([".text._Z1kv:", *text]))
    return found


def test_instructions_are_decoded(sass: Load) -> None:
    text = encoded("@!P1 LDG.E.64 R6, desc[UR8][R6.64]", stall=9, write=3, read=5, waits=(0, 4))
    (found,) = kernel(sass, text).instructions
    assert (found.opcode, found.name, found.conditional) == ("LDG.E.64", "LDG", True)
    assert (found.stall, found.write_scoreboard, found.read_scoreboard, found.waits) == (9, 3, 5, (0, 4))
    (plain,) = kernel(sass, "FADD R1, R2, R3").instructions
    assert (plain.conditional, plain.write_scoreboard, plain.read_scoreboard, plain.waits) == (
        False,
        None,
        None,
        (),
    )


def test_a_listing_of_nvdisasm_is_decoded(sass: Load) -> None:
    """Lines as nvdisasm 13.5 prints them; the stall counts, scoreboards and waits were decoded by hand."""
    text = """
.text._Z4loadPf:
        /*0000*/                   LDC R1, c[0x0][0x28] ;                     /* 0x00000a00ff017b82 */
                                                                              /* 0x000ff00000000800 */
.L_x_0:
        /*0010*/                   IMAD.WIDE.U32 R6, R11, 0x8, R6 ;           /* 0x000000080b067825 */
                                                                              /* 0x001fcc00078e0006 */
        /*0020*/              @!P1 BRA `(.L_x_0) ;                            /* 0xfffffffc00f89947 */
                                                                              /* 0x000fea000383ffff */
"""
    (found,) = sass("listing").parse(text)
    load, multiply, branch = found.instructions
    assert (load.stall, load.waits) == (8, ())
    assert (multiply.stall, multiply.waits) == (6, (0,))
    assert (branch.stall, branch.label, branch.conditional) == (5, ".L_x_0", True)
    assert found.name == "_Z4loadPf" and found.loops() == [range(1, 3)]


@pytest.mark.parametrize(
    "text", ["", "nothing", ".text._Z1kv:\n" + encoded("NOP").splitlines()[0] + "\nother"]
)
def test_what_is_no_listing_is_refused(sass: Load, text: str) -> None:
    with pytest.raises(ValueError, match=r"no kernels|second half"):
        sass("listing").parse(text)


def test_loops_end_at_the_last_branch_back(sass: Load) -> None:
    found = kernel(
        sass, "NOP", ".L_a:", "NOP", ".L_b:", "NOP", "@P0 BRA `(.L_b)", "@P1 BRA `(.L_a)", "BRA `(.L_a)"
    )
    assert found.loops() == [range(1, 6), range(2, 4)]


def loop_of(sass: Load, *lines: str) -> tuple[Any, range]:
    found = kernel(sass, ".L_loop:", *lines, encoded("@P0 BRA `(.L_loop)", stall=5))
    return found, range(len(found.instructions))


def test_stalls_add_up(sass: Load) -> None:
    found, loop = loop_of(sass, encoded("FADD R1, R1, R2", stall=4), encoded("FADD R1, R1, R2", stall=2))
    cost = sass("simulate").simulate(found, loop)
    assert cost.instructions == 3 and cost.waits == {}
    assert cost.cycles == 4 + 2 + 5 + sass("simulate").TAKEN_BRANCH


def test_a_result_is_waited_for(sass: Load) -> None:
    simulate = sass("simulate")
    lines = encoded("LDG.E R1, [R2]", stall=2, write=0), encoded("FADD R3, R1, R1", stall=4, waits=(0,))
    found, loop = loop_of(sass, *lines)
    for load in (100, 700):
        cost = simulate.simulate(found, loop, load=load)
        assert cost.cycles == load + 4 + 5 + simulate.TAKEN_BRANCH
        assert cost.waits == {1: load - 2}


def test_a_load_one_turn_ahead_hides_its_latency(sass: Load) -> None:
    """The work between a load and the use of its value takes longer than the load."""
    simulate = sass("simulate")
    work = [encoded("FADD R4, R4, R5", stall=10)] * 20
    use = encoded("FADD R3, R1, R1", stall=1, waits=(0,))
    fetch = encoded("LDG.E R1, [R2]", stall=1, write=0)
    hidden = simulate.simulate(*loop_of(sass, use, fetch, *work), load=150)
    assert hidden.cycles == 1 + 1 + 200 + 5 + simulate.TAKEN_BRANCH and not hidden.waits
    late = simulate.simulate(*loop_of(sass, *work, fetch, use), load=150)
    assert late.cycles == hidden.cycles + 149


def test_operands_are_waited_for(sass: Load) -> None:
    simulate = sass("simulate")
    found, loop = loop_of(sass, encoded("STG.E [R2], R1", read=2), encoded("FADD R1, R1, R3", waits=(2,)))
    assert simulate.simulate(found, loop).waits == {1: simulate.OPERANDS - 1}


def test_float64_is_slow_on_some_gpus(sass: Load) -> None:
    found, loop = loop_of(sass, encoded("DFMA R2, R2, R4, R6", write=0, waits=(0,)))
    cycles = {arch: sass("simulate").simulate(found, loop, arch=arch).cycles for arch in ("sm_90", "sm_120")}
    assert cycles["sm_120"] > cycles["sm_90"]


def test_paths_follow_branches(sass: Load) -> None:
    path = sass("simulate").path
    found, loop = loop_of(
        sass, "@P1 BRA `(.L_else)", "NOP", "BRA `(.L_join)", ".L_else:", "NOP", ".L_join:", "NOP"
    )
    assert path(found, loop) == [0, 1, 2, 4, 5]
    assert path(found, loop, [0]) == [0, 3, 4, 5]


@pytest.mark.parametrize("line", ["BRA `(.L_loop)", "BRA `(.L_nowhere)"])
def test_a_path_that_leaves_its_loop_is_an_error(sass: Load, line: str) -> None:
    with pytest.raises(ValueError, match="goes to"):
        sass("simulate").path(*loop_of(sass, "NOP", line, "NOP"))


def test_rare_blocks_are_skipped(sass: Load) -> None:
    lines = [
        "@P1 BRA `(.L_a)",
        "ST.E [R2], R1",
        ".L_a:",
        "@P2 BRA `(.L_b)",
        "ST.E [R2], R1",
        "SHFL R1, R1",
        ".L_b:",
    ]
    found, loop = loop_of(sass, *lines, "STG.E [R2], R1")
    skippable = sass("simulate").skippable
    assert skippable(found, loop, r"ST(\.|$)", "SHFL") == [0]
    assert skippable(found, loop, r"ST(\.|$)", "$^") == [0, 2]
    assert skippable(found, loop, r"LD(\.|$)", "$^") == []


def test_the_shortest_turn_with_some_opcodes_is_found(sass: Load) -> None:
    lines = [
        "@P1 BRA `(.L_fast)",
        *["SHFL R1, R1"] * 4,
        "BRA `(.L_join)",
        ".L_fast:",
        *["SHFL R1, R1"] * 2,
        ".L_inner:",
        "NOP",
        "@P3 BRA `(.L_inner)",
        ".L_join:",
        "@P2 BRA `(.L_end)",
        "STG.E [R2], R1",
        ".L_end:",
    ]
    found, loop = loop_of(sass, *lines, "NOP")
    shortest, path = sass("simulate").shortest, sass("simulate").path
    assert shortest(found, loop, {"SHFL": 2}) == [0, 10]
    assert shortest(found, loop, {"SHFL": 4}) == [10]
    assert shortest(found, loop, {"SHFL": 2, "STG": 1}) == [0]
    assert shortest(found, loop, {"SHFL": 5}) is None
    assert path(found, loop, [0, 10]) == [0, 6, 7, 8, 9, 10, 12, 13]
    turn = sass("kernels").Loop("turn", "frame", {"SHFL": 2}, turn={"SHFL": 2, "STG": 1})
    assert turn.find(found) == [loop]
    assert turn.taken(found, loop) == [0]


def test_loops_are_found_by_what_they_contain(sass: Load) -> None:
    small, large = ["SHFL R1, R1"] * 2, ["SHFL R1, R1"] * 4
    found = kernel(
        sass,
        *(
            ".L_out:",
            "NOP",
            ".L_a:",
            *small,
            "@P0 BRA `(.L_a)",
            ".L_b:",
            *large,
            "@P0 BRA `(.L_b)",
            "@P1 BRA `(.L_out)",
        ),
    )
    kernels = sass("kernels")
    both = kernels.Loop("both", "frame", {"SHFL": 2}, ("SHFL", 2), "SHFL")
    assert both.find(found) == [range(4, 9), range(1, 4)]  # the outer loop is left out
    assert [both.units_of(found, loop) for loop in both.find(found)] == [2, 1]
    assert kernels.Loop("one", "frame", {"SHFL": 3}).find(found) == [range(4, 9)]
    assert kernels.Loop("last", "frame", {"SHFL": 2}, 1, "SHFL", slice(1, None)).find(found) == [range(1, 4)]


@pytest.mark.parametrize(
    "arch, threads, registers, shared, blocks",
    [
        ("sm_90", 256, 32, 0, 8),  # warps
        ("sm_90", 32, 32, 0, 32),  # blocks
        ("sm_90", 256, 64, 0, 4),  # registers
        ("sm_90", 256, 33, 0, 6),  # registers: 40 of them
        ("sm_90", 512, 128, 0, 1),
        ("sm_90", 128, 32, 100 * 1024, 2),  # shared memory
        ("sm_120", 256, 32, 0, 6),
        ("sm_120", 1024, 64, 0, 1),
        ("sm_75", 256, 32, 40 * 1024, 1),
    ],
)
def test_occupancy(sass: Load, arch: str, threads: int, registers: int, shared: int, blocks: int) -> None:
    assert sass("occupancy").blocks_per_sm(arch, threads, registers, shared) == blocks


def test_resources_of_the_assembler(sass: Load) -> None:
    text = """ptxas info    : Compiling entry function '_Z1av' for 'sm_90'
ptxas info    : Function properties for _Z1av
    16 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 59 registers, used 1 barriers, 496 bytes smem
ptxas info    : Compiling entry function '_Z1bv' for 'sm_90'
ptxas info    : Used 46 registers, used 0 barriers
"""
    found = sass("table").resources(text)
    assert found["_Z1av"] == {"registers": 59, "spilled": 32, "shared": 496}
    assert found["_Z1bv"] == {"registers": 46, "spilled": 0, "shared": 0}


@pytest.fixture
def tables(sass: Load) -> tuple[ModuleType, dict[str, Any]]:
    return sass("compare"), json.loads((SASS / "table.json").read_text())


@pytest.mark.parametrize(
    "change, is_worse",
    [
        ({"spilled": 8}, True),
        ({"shared": 16}, True),
        ({"generic": 2}, True),
        ({"warps": -8}, True),
        ({"warps": 8}, False),
        ({"cached": 40}, True),
        ({"cached": 1}, False),
        ({"memory": -40}, False),
    ],
)
def test_what_is_worse_is_seen(
    tables: tuple[ModuleType, dict[str, Any]], change: dict[str, int], is_worse: bool
) -> None:
    module, before = tables
    after = copy.deepcopy(before)
    name = "recursions<float, float, 2, 4, false>"
    ((key, more),) = change.items()
    of = after["kernels"]["sm_90"][name]
    of = of if key in of else of["loops"]["first walk"]
    of[key] += more
    worse, other = module.compare(before, after)
    (line,) = worse if is_worse else other
    assert f"sm_90 {name}" in line and str(of[key]) in line
    assert len(worse) + len(other) == 1
    assert module.compare(before, before) == ([], [])


def test_another_compiler_is_not_judged(tables: tuple[ModuleType, dict[str, Any]]) -> None:
    module, before = tables
    after = copy.deepcopy(before) | {"nvcc": "V99"}
    assert module.compare(before, after) == ([], [])
    after["kernels"]["sm_90"]["gradient<float, 1>"]["spilled"] += 4
    worse, other = module.compare(before, after)
    assert worse == [] and "V99" in other[0] and len(other) == 2


def test_a_kernel_that_begins_to_spill_is_seen(tables: tuple[ModuleType, dict[str, Any]]) -> None:
    module, before = tables
    after = copy.deepcopy(before)
    after["kernels"]["sm_90"]["new<int>"] = {"spilled": 24}
    assert module.compare(before, after)[0] == ["sm_90 new<int>: spills 24 bytes; it did not spill"]


def test_the_table_has_every_hot_kernel_and_is_as_its_markdown(sass: Load) -> None:
    table, kernels = sass("table"), sass("kernels")
    found = json.loads((SASS / "table.json").read_text())
    assert list(found["kernels"]) == table.ARCHS
    for figures in found["kernels"].values():
        for hot in kernels.HOT:
            found_loops = figures[hot.name]["loops"]
            always = [loop.name for loop in hot.loops if not loop.absent]
            assert [name for name in found_loops if name in always] == always
            assert set(found_loops) <= {loop.name for loop in hot.loops}
            assert all(cost["cached"] > 0 for cost in figures[hot.name]["loops"].values())
    assert table.markdown(found) == (SASS / "table.md").read_text()


def test_sources_of_hot_kernels_exist(sass: Load) -> None:
    for hot in sass("kernels").HOT:
        assert (Path(sass("table").SOURCES) / f"{hot.file}.cu").exists()


def test_estimates_are_of_the_slowest_bound(sass: Load) -> None:
    estimate = sass("estimate")
    rate = estimate.SMS * estimate.ISSUE_RATE * estimate.CLOCK
    work = estimate.Work("kernel", estimate.MEMORY_RATE, 2 * estimate.CLOCK, 3 * rate)
    assert work.times() == {"memory": 1, "chain": 2, "issue": 3}
    assert work.seconds() == 3 + estimate.LAUNCH
    both = estimate.Estimate("op", "case", (work, estimate.Work("other")))
    assert both.seconds() == pytest.approx(3 + 2 * estimate.LAUNCH)
    assert both.floor() == 1
    assert "not measurements" in estimate.markdown([both]) and "kernel 3000002 (issue)" in estimate.markdown(
        [both]
    )


def test_every_op_has_estimates_from_the_table(sass: Load) -> None:
    estimate = sass("estimate")
    table = json.loads((SASS / "table.json").read_text())
    found = [each for op in estimate.OPS for each in op(table)]
    assert len({(each.op, each.case) for each in found}) == len(found)
    for each in found:
        assert each.floor() < each.seconds() < 0.1
    losses = {each.case: each for each in found if each.op == "ctc_loss, forward"}
    both = {each.case: each for each in found if each.op == "ctc_loss, forward + backward"}
    for case, each in losses.items():
        assert each.seconds() < both[case].seconds()


def test_searches_have_estimates_from_the_table(sass: Load) -> None:
    estimates, table = sass("search_estimates"), json.loads((SASS / "table.json").read_text())
    slower = copy.deepcopy(table)
    for name in (
        "align<float, 1>",
        "align<float, 2>",
        "search<float, 32, NoScorer>",
        "search<float, 256, NoScorer>",
    ):
        for loop in slower["kernels"]["sm_90"][name]["loops"].values():
            loop["cached"] *= 100
    for op in (estimates.alignments, estimates.searches):
        for each, worse in zip(op(table), op(slower), strict=True):
            assert 0 < each.floor() < each.seconds() < worse.seconds() / 10
    assert all(0 < each.floor() < each.seconds() for each in estimates.greedy())


def test_published_times_stand_beside_their_estimates(sass: Load) -> None:
    shown = (SASS / "estimates.md").read_text(encoding="utf-8")
    for published in sass("estimate").PUBLISHED.values():
        assert shown.count(f"| {published} |") == 1


def test_the_estimates_are_of_the_present_table(sass: Load) -> None:
    found = sass("estimates")
    assert found.FILE.read_text(encoding="utf-8") == found.estimates(), (
        "python benchmarks/sass/estimates.py --write"
    )
