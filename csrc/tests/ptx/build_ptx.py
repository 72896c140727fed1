#!/usr/bin/env python3
"""Build the PTX of CUDA kernels into C++ libraries.

    build_ptx.py translate OP.cu FOLDER   write FOLDER/OP.o, the host code, and FOLDER/OP.kernels, a list
    build_ptx.py compile KERNEL.cpp       print the path of the library of a kernel; compile it if needed
    build_ptx.py all FOLDER [JOBS]        compile every kernel of the lists in FOLDER

A list has one line per kernel: its mangled name, and the C++ file that it was translated into. Programs that run
kernels call `compile` for those that they launch. A cache has each result under the hash of what it depends on, so
that it is made once: $FASTCTC_PTX_CACHE, or build/ptx-cache.
"""

from __future__ import annotations

import concurrent.futures
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from translator.emitter import KernelEmitter
from translator.parser import parse

HERE = Path(__file__).resolve().parent
CSRC = HERE.parent.parent
CACHE = Path(os.environ.get("FASTCTC_PTX_CACHE") or CSRC.parent / "build" / "ptx-cache")

HEADERS = ("kernel.h", "arithmetic.h", "approximations.h", "registers.h", "machine.h")  # of a kernel
ARCHITECTURE = os.environ.get("FASTCTC_PTX_ARCH") or "compute_80"
NVCC_FLAGS = [
    *("-std=c++17", "-O3", f"-gencode=arch={ARCHITECTURE},code={ARCHITECTURE}"),
    "-Xcompiler=-fPIC,-fvisibility=hidden",
]
CXX = os.environ.get("CXX", "g++")
# Without contraction, because PTX names each fma. A kernel is one function of thousands of lines: -O2 is slow.
CXX_FLAGS = [
    *("-std=c++17", "-O1", "-g0", "-w", "-fPIC", "-shared"),
    *("-mfma", "-ffp-contract=off", "-frounding-math", "-fno-math-errno"),
    *("-fno-strict-aliasing", "-fvisibility=hidden", "-fno-var-tracking"),
]


def digest(*parts: str | bytes) -> str:
    """Return a hash of texts."""
    found = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        found.update(str(len(data)).encode() + b":" + data)
    return found.hexdigest()[:24]


def run(command: list[str], folder: Path | None = None) -> str:
    """Run a command and return its output; exit with its messages if it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


@lru_cache
def version(program: str) -> str:
    """Return what a compiler prints as its version."""
    return run([program, "--version"])


def cached(key: str, make: Callable[[Path], None]) -> Path:
    """Return the entry of the cache, a file or folder that `make` writes. Of several processes one makes it."""
    path = CACHE / key
    if path.exists():
        return path
    locks = CACHE / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / key).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=CACHE, prefix="new-") as folder:
                new = Path(folder) / key
                make(new)
                new.rename(path)
    return path


def included(source: Path, found: dict[Path, str]) -> dict[Path, str]:
    """Return the text of a source and of the headers beside it that it includes, directly or not."""
    if source not in found:
        found[source] = source.read_text()
        for header in re.findall(r'^\s*#\s*include\s*"([^"]+)"', found[source], re.MULTILINE):
            for path in ((source.parent / header).resolve(), CSRC / header):
                if path.exists():
                    included(path, found)
                    break
    return found


def translate(source: Path, folder: Path) -> list[tuple[str, str]]:
    """Write the object and the list of kernels of a CUDA source; return the list."""
    folder = folder.resolve()
    texts = included(source.resolve(), {})
    translator = [path.read_text() for path in sorted((HERE / "translator").glob("*.py"))]
    nvcc = os.environ.get("CUDACXX", "nvcc")
    names = [str(path.relative_to(CSRC)) if path.is_relative_to(CSRC) else path.name for path in texts]
    key = digest(version(nvcc), version(CXX), *NVCC_FLAGS, *names, *texts.values())

    def compile_cuda(new: Path) -> None:
        new.mkdir()
        kept = new / "kept"
        kept.mkdir()
        keep = ["-keep", "-keep-dir", str(kept)]
        run(
            [nvcc, *NVCC_FLAGS, f"-I{CSRC}", *keep, "-c", str(source.resolve()), "-o", str(new / "host.o")],
            new,
        )
        refuse_device_calls(source, new / "host.o")
        (kept / f"{source.stem}.ptx").rename(new / "kernels.ptx")
        shutil.rmtree(kept)

    compiled = cached(f"{source.stem}-{key}", compile_cuda)

    def translate_kernels(new: Path) -> None:
        new.mkdir()
        module = parse((compiled / "kernels.ptx").read_text())
        for name in (each.name for each in module.functions.values() if each.is_entry):
            text = KernelEmitter(module, name).emit()
            (new / f"{digest(text)}.cpp").write_text(text)
            with (new / "list").open("a") as kernels:
                kernels.write(f"{name} {digest(text)}.cpp\n")

    translated = cached(f"{source.stem}-{digest(key, *translator)}", translate_kernels)
    folder.mkdir(parents=True, exist_ok=True)
    listed = (translated / "list").read_text().split() if (translated / "list").exists() else []
    kernels = [(name, str(folder / file)) for name, file in zip(listed[::2], listed[1::2])]
    for _, file in kernels:
        publish((translated / Path(file).name).read_bytes(), Path(file))
    publish((compiled / "host.o").read_bytes(), folder / f"{source.stem}.o")
    lines = "".join(f"{name} {file}\n" for name, file in kernels)
    publish(lines.encode(), folder / f"{source.stem}.kernels")
    return kernels


def refuse_device_calls(source: Path, host: Path) -> None:
    """Fail if host code calls a __device__ function: such a call ends the process."""
    if "exit" in run(["nm", "-u", str(host)]).split():
        sys.exit(f"{source}: host code calls a __device__ function, which nvcc turned into exit(1)")


def publish(data: bytes, path: Path) -> None:
    """Write a file under a temporary name and rename it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
    Path(file.name).rename(path)


def compile_kernel(source: Path) -> Path:
    """Return the library of a translated kernel."""
    headers = [(HERE / name).read_text() for name in HEADERS]
    key = digest(version(CXX), *CXX_FLAGS, *headers, source.read_text())
    flags = [*CXX_FLAGS, f"-I{CSRC / 'tests'}"]

    def make(new: Path) -> None:
        run([CXX, *flags, str(source), "-o", str(new)])

    return cached(f"{key}.so", make)


def compile_all(folder: Path, jobs: int) -> None:
    """Compile the kernels of all lists, and print the time of each."""

    def timed(line: str) -> None:
        name, source = line.split()
        start = time.monotonic()
        compile_kernel(Path(source))
        print(f"{time.monotonic() - start:6.1f} s  {name}", flush=True)

    lines = [line for path in sorted(folder.glob("*.kernels")) for line in path.read_text().splitlines()]
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        list(pool.map(timed, lines))


def main(arguments: list[str]) -> None:
    """Run one of the commands of the docstring."""
    if arguments[:1] == ["translate"] and len(arguments) == 3:
        translate(Path(arguments[1]), Path(arguments[2]))
    elif arguments[:1] == ["compile"] and len(arguments) == 2:
        print(compile_kernel(Path(arguments[1])))
    elif arguments[:1] == ["all"] and len(arguments) in (2, 3):
        compile_all(Path(arguments[1]), int(arguments[2]) if len(arguments) == 3 else os.cpu_count() or 1)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
