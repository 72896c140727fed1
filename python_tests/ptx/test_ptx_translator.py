"""The translation of PTX into C++: what is read, what is written, what is refused."""

from __future__ import annotations

import re

import pytest
from ptx_sources import FOLDER, emitter, kernel, opcodes, parser, translated, types


def lines_of(body: str) -> list[str]:
    """Return the C++ statements of instructions."""
    text = translated(kernel(body))
    inner = text[text.index("{\n", text.index("function0(", text.index("function0(") + 1)) :]
    return [line.strip() for line in inner.splitlines() if line.startswith("  ")]


def test_a_function_is_parsed() -> None:
    before = (
        ".extern .shared .align 16 .b8 dynamic[];\n.const .align 8 .f64 table[2] = {0d3FE0000000000000, 1};"
    )
    text = kernel("$L__1: @!%p1 bra $L__1; // a comment\n", before=before, directives=".maxntid 8, 4, 2")
    module = parser.parse(text)
    function = module.functions["k"]
    assert function.is_entry and function.max_threads == 64
    assert [(each.bytes, each.align) for each in function.parameters] == [(24, 8), (8, 8)]
    assert function.registers["%rd7"] == "b64" and "%rd8" not in function.registers
    label, branch, ret = function.body
    assert label == parser.Label("$L__1")
    assert (branch.guard, branch.opcode, branch.operands) == ("!%p1", "bra", ("$L__1",))
    assert ret.opcode == "ret"
    assert module.variables["dynamic"].count == 0 and module.variables["table"].bytes == 16


def test_names_of_inner_scopes_are_their_own() -> None:
    """Inline assembly declares the same register in each of its braces, with different types."""
    blocks = "{ .reg .pred q; setp.eq.s32 q, %r1, 0; } { .reg .b32 q; mov.b32 q, %r1; mov.b32 %r2, q; }"
    text = translated(kernel(blocks))
    assert "bool" in text and "q__1" in text and "r2 = copy(_q__2);" in text


@pytest.mark.parametrize(
    ("instruction", "statement"),
    [
        ("add.s32 %r1, %r2, -1;", "r1 = put<uint32_t>(add(get<int32_t>(r2), int32_t(uint32_t(0xffffffffull))));"),
        ("add.f32 %f1, %f2, 0f3F800000;", "put<uint32_t>(add(get<float>(f2), get<float>(uint32_t(0x3F800000))));"),
        ("mul.wide.u32 %rd1, %r1, 4;", "rd1 = mul_wide(r1, uint32_t(0x4ull));"),
        ("cvt.s64.s32 %rd1, %r1;", "rd1 = put<uint64_t>(cast<int64_t>(get<int32_t>(r1)));"),
        ("cvt.rzi.s32.f64 %r1, %fd1;", "r1 = put<uint32_t>(saturate<int32_t>(cvt_rzi(get<double>(fd1))));"),
        ("selp.b32 %r1, 1, 0, %p1;", "r1 = select(uint32_t(0x1ull), uint32_t(0x0ull), p1);"),
        ("@!%p1 mov.u32 %r1, %tid.x;", "if (!p1) { r1 = copy(uint32_t(at.thread[0])); }"),
        ("mov.b64 {%r1, %r2}, %rd1;", "r2 = uint32_t(part1);"),
        ("mov.b64 %rd1, {%r1, %r2};", "uint64_t(r2) << 32"),
        ("setp.lt.and.f32 %p1|%p2, %f1, %f2, !%p3;", "bit_and(!set_lt(get<float>(f1), get<float>(f2)), !p3)"),
        ("ld.global.nc.v2.f32 {%f1, %f2}, [%rd1+-8];", "load_vector<float, 2>(m, Space::kGlobal, uint64_t(rd1) +"),
        ("ld.shared.u8 %rs1, [%r1];", "rs1 = put<uint16_t>(load<uint8_t>(m, Space::kShared, uint64_t(r1), 9));"),
        ("st.v2.u32 [%rd1], {%r1, 7};", "store_vector<uint32_t, 2>(m, Space::kGeneric, uint64_t(rd1), 9, {r1, "),
        ("ld.param.u64 %rd1, [k_param_0+16];", "load<uint64_t>(m, Space::kParam, uint64_t(uint64_t(arguments[0]))"),
        ("atom.shared.add.u32 %r1, [%r2], 1;", "r1 = atomic_add<uint32_t>(m, Space::kShared, uint64_t(r2), 9, "),
        ("red.global.max.s32 [%rd1], %r1;", "atomic_max<int32_t>(m, Space::kGlobal, uint64_t(rd1), 9, "),
        ("bar.sync 0;", 'm.barrier(uint32_t(0x0ull), at.block_threads(), false, "bar.sync", 9);'),
        ("barrier.cta.sync.aligned 1, 64;", "m.barrier(uint32_t(0x1ull), uint32_t(0x40ull), false,"),
        ("bar.red.and.pred %p1, 0, !%p2;", "== at.block_threads();"),
        ("bar.warp.sync %r1;", 'm.meet(r1, 0, "bar.warp.sync", 9, true);'),
        ("shfl.sync.up.b32 %r1|%p1, %r2, 1, 0, -1;", "p1 = got.in_range;"),
        ("vote.sync.any.pred %p1, %p2, -1;", "p1 = vote_any(m, at, uint32_t(0xffffffffull), p2,"),
        ("cp.async.cg.shared.global [%r1], [%rd1], 16;", "async_copy(uint64_t(r1), uint64_t(rd1), uint32_t("),
        ("cp.async.wait_group 1;", "m.async_wait(uint32_t(0x1ull));"),
    ],
)  # fmt: skip
def test_an_instruction_becomes_a_statement(instruction: str, statement: str) -> None:
    assert any(statement in line for line in lines_of(instruction)), lines_of(instruction)


@pytest.mark.parametrize(
    ("instruction", "problem"),
    [
        ("frobnicate.s32 %r1, %r2;", "frobnicate.s32, in line 9 of k: frobnicate.s32 %r1, %r2"),
        ("add.rz.f32 %f1, %f2, %f3;", "add.rz.f32, in line 9"),
        ("add.s32.sat %r1, %r2, %r3;", "add.s32.sat, in line 9"),
        ("add.s32 %r1, %r2;", "1 operands, in line 9"),
        ("add.s32 %r1, %r2, %r99;", "name %r99, in line 9"),
        ("add.f32 %f1, %f2, 1;", "1 as f32"),
        ("mov.b32 %p1, %r1;", "b32 into %p1"),
        ("ld.global.cached.u32 %r1, [%rd1];", ".cached"),
        ("st.global.u32 [missing], %r1;", "name missing"),
        ("bra $L__9;", "label $L__9"),
        ("call.uni missing, ();", "call of missing"),
        ("bar.arrive 1, 64;", "bar.arrive"),
        ("atom.global.frob.u32 %r1, [%rd1], 1;", "atom.global.frob.u32"),
        ("shfl.up.b32 %r1, %r2, 1, 0;", "shfl.up.b32"),
        ("cp.async.bulk.commit_group;", "cp.async.bulk.commit_group"),
    ],
)
def test_what_has_no_meaning_is_refused_with_its_place(instruction: str, problem: str) -> None:
    with pytest.raises(types.Unsupported, match=re.escape(problem)):
        translated(kernel(instruction))


def test_a_variable_that_kernels_could_write_is_refused() -> None:
    text = kernel("mov.u64 %rd1, state;", before=".visible .global .align 4 .u32 state;")
    with pytest.raises(types.Unsupported, match="the variable state, which kernels could write"):
        translated(text)


def test_shared_arrays_are_aligned_and_the_dynamic_one_follows() -> None:
    body = """
    .shared .align 2 .b8 small[6];
    .shared .align 16 .b8 large[32];
    mov.u32 %r1, small;
    mov.u32 %r2, large;
    mov.u32 %r3, dynamic;
    """
    text = translated(kernel(body, before=".extern .shared .align 16 .b8 dynamic[];"))
    assert "(at.shared + 0)" in text and "(at.shared + 16)" in text and "at.dynamic_shared" in text
    assert "fastctc::ptx::function0, 48, 1024," in text


def test_functions_are_called_with_places_of_their_results_and_arguments() -> None:
    callee = """
.func (.param .b32 result) f(
    .param .b64 f_param_0
)
;
.func (.param .b32 result) f(
    .param .b64 f_param_0
)
{
    .reg .b32 %r<2>;
    ld.param.u32 %r1, [f_param_0];
    st.param.b32 [result+0], %r1;
    ret;
}
"""
    body = """
    {
    .param .b64 param0;
    st.param.b64 [param0+0], %rd1;
    .param .b32 retval0;
    call.uni (retval0),
    f,
    (
    param0
    );
    ld.param.b32 %r1, [retval0+0];
    }
    """
    text = translated(kernel(body, before=callee))
    passed = "{(unsigned char*)uint64_t(_retval0__1), (unsigned char*)uint64_t(_param0__1)}; function1("
    assert passed in text
    assert "store<uint32_t>(m, Space::kParam, uint64_t(uint64_t(arguments[0])), 3, r1);" in text


def test_equal_kernels_give_equal_files() -> None:
    """Whatever names nvcc gives them, which change from run to run."""
    one, other = (
        translated(
            kernel("mov.u64 %rd1, t;\n$L__1: bra $L__1;".replace("t;", f"{n}t;").replace("__1", f"__{n}"),
                   n, before=f".const .u32 {n}t[2] = {{1, 2}};"),
            n,
        )
        for n in ("_Zab12", "_Zcd34")
    )  # fmt: skip
    assert one == other


def test_the_table_has_no_opcode_twice() -> None:
    with pytest.raises(ValueError, match=r"two lines of the table give add\.s32"):
        opcodes.build_table("add.{T:I}: T = add(T, T)\nadd.s32: s32 = add(s32, s32)")


def test_every_function_of_the_table_is_defined_and_tested() -> None:
    """A row without its C++ would fail only when a kernel uses it, and long after it was written."""
    names = {
        name for each in opcodes.OPERATIONS.values() for name in re.findall(r"\b(\w+)[<(]", each.expression)
    }
    names -= {types.cpp_type(kind) for kinds in types.SETS.values() for kind in kinds}
    headers = "".join((FOLDER / name).read_text() for name in ("arithmetic.h", "approximations.h"))
    tests = (FOLDER / "test_ptx_arithmetic.cpp").read_text()
    assert len(names) > 60
    assert sorted(n for n in names if not re.search(rf"\b{n}\(", headers)) == []
    assert sorted(n for n in names if not re.search(rf"\b{n}[(<]", tests)) == []


def test_an_operation_has_the_types_of_its_pattern() -> None:
    found = opcodes.OPERATIONS["mad.wide.s16"]
    assert (found.result, found.operands) == ("s32", ("s16", "s16", "s32"))
    assert opcodes.OPERATIONS["shl.b64"].operands == ("b64", "u32")
    assert opcodes.OPERATIONS["cvt.rn.f64.s32"].expression == "cast<double>({0})"
    assert emitter.rounded_up(17, 16) == 32
