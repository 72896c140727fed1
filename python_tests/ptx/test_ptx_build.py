"""The cache of translated kernels: what makes an entry stale, and what an interrupted build leaves."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from ptx_sources import build_ptx, kernel, translated


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_ptx, "CACHE", tmp_path / "cache")


def test_an_entry_is_made_once() -> None:
    calls = []

    def make(new: Path) -> None:
        calls.append(new)
        new.write_text("made")

    paths = {build_ptx.cached("key", make) for _ in range(3)}
    assert len(calls) == 1 and paths == {build_ptx.CACHE / "key"}
    assert calls[0] != build_ptx.CACHE / "key", "an entry is written under another name, then renamed"


def test_a_build_that_fails_leaves_no_entry() -> None:
    def fail(new: Path) -> None:
        new.write_text("half")
        raise SystemExit("interrupted")

    with pytest.raises(SystemExit):
        build_ptx.cached("key", fail)
    assert [path.name for path in build_ptx.CACHE.iterdir()] == ["locks"]
    build_ptx.cached("key", lambda new: new.write_text("whole"))
    assert (build_ptx.CACHE / "key").read_text() == "whole"


def test_headers_are_followed(tmp_path: Path) -> None:
    (tmp_path / "a.cu").write_text('#include "b.h"\n#include <vector>\n')
    (tmp_path / "b.h").write_text('#include "c.h"\n#include "kernels/dtype.h"\n')
    (tmp_path / "c.h").write_text('#include "b.h"\n')
    names = {path.name for path in build_ptx.included(tmp_path / "a.cu", {})}
    assert {"a.cu", "b.h", "c.h", "dtype.h", "element.h"} <= names


def test_the_key_depends_on_each_part() -> None:
    assert build_ptx.digest("a", "bc") != build_ptx.digest("ab", "c")
    assert build_ptx.digest("a") == build_ptx.digest(b"a")


def test_a_kernel_that_does_not_compile_says_why(tmp_path: Path) -> None:
    source = tmp_path / "k.cpp"
    source.write_text('#include "ptx/kernel.h"\nint x = missing;\n')
    with pytest.raises(SystemExit, match="missing"):
        build_ptx.compile_kernel(source)


def test_a_translated_kernel_compiles(tmp_path: Path) -> None:
    body = "ld.param.u64 %rd1, [k_param_1];\nmov.u32 %r1, %tid.x;\nst.global.u32 [%rd1], %r1;"
    source = tmp_path / "k.cpp"
    source.write_text(translated(kernel(body)))
    path = build_ptx.compile_kernel(source)
    assert path == build_ptx.compile_kernel(source) and path.parent == build_ptx.CACHE
    symbols = subprocess.run(
        ["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=True
    ).stdout
    assert [line.split()[-1] for line in symbols.splitlines()] == ["fastctc_ptx_kernel"]


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
def test_a_cuda_source_is_translated(tmp_path: Path) -> None:
    """Anonymous namespaces have a process number in their names, and their kernels the same C++ in each run."""
    source = tmp_path / "k.cu"
    source.write_text(
        "namespace { __global__ void k(int* x) { x[threadIdx.x] += 1; } }\nvoid f(int* x) { k<<<1, 1>>>(x); }\n"
    )
    files = []
    for run in ("one", "other"):
        ((_, file),) = build_ptx.translate(source, tmp_path / run)
        files.append(Path(file).name)
        shutil.rmtree(build_ptx.CACHE)
        assert (tmp_path / run / "k.o").exists() and file in (tmp_path / run / "k.kernels").read_text()
    assert files[0] == files[1]


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize("place", ["__device__", "__host__ __device__"])
def test_a_device_function_called_by_host_code_is_refused(tmp_path: Path, place: str) -> None:
    """The compiler does not diagnose it in a branch of `if constexpr` of a template."""
    source = tmp_path / "k.cu"
    source.write_text(
        f"{place} __forceinline__ int larger(int a, int b) {{ return a > b ? a : b; }}\n"
        "template <class T> int call(int a) {\n"
        "  if constexpr (sizeof(T) == 4) a = larger(a, 3);\n"
        "  return a;\n}\n"
        "template <class T> int choose(int a) { return call<T>(a); }\n"
        "int first(int a) { return choose<float>(a); }\n"
        "__global__ void kernel(int* x) { *x = larger(*x, 1); }\n"
    )
    if place == "__device__":
        with pytest.raises(SystemExit, match=r"calls a __device__ function|is not allowed"):
            build_ptx.translate(source, tmp_path / "lists")
    else:
        assert len(build_ptx.translate(source, tmp_path / "lists")) == 1
