"""The machine code of the kernels, without a GPU: registers, spills, occupancy, and the cycles of the hot loops.

nvcc compiles the kernels, nvdisasm prints them, and simulate.py counts cycles: its text explains what they mean.
The table in this folder is compared with the present code, so that a change that makes a kernel worse is seen.

  python benchmarks/sass/table.py                    compare with table.json; exit status 1 if something is worse
  python benchmarks/sass/table.py --arch sm_90 --file ctc_loss_forward --print     a part, as a table
  python benchmarks/sass/table.py --write            write table.json and table.md anew (about five minutes)

It needs nvcc, c++filt, and nvdisasm on PATH or in NVDISASM (`pip install nvidia-cuda-nvdisasm` has one).
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from compare import compare
from kernels import HOT, Hot, short_name
from listing import Kernel, parse
from occupancy import blocks_per_sm
from simulate import CACHE, MEMORY, path, simulate

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent.parent / "csrc" / "kernels" / "cuda"
ARCHS = ["sm_80", "sm_90", "sm_120"]

Figures = dict[str, Any]


def run(*command: str, text: str | None = None) -> tuple[str, str]:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout, done.stderr


def disassembler() -> str:
    """Return the path of nvdisasm."""
    path = os.environ.get("NVDISASM") or shutil.which("nvdisasm")
    if not path:
        try:
            from importlib.metadata import files

            found = [each.locate() for each in files("nvidia-cuda-nvdisasm") or [] if each.name == "nvdisasm"]
        except ImportError:
            found = []
        if not found:
            raise FileNotFoundError("nvdisasm is neither on PATH nor in NVDISASM")
        path = str(found[0])
    return path


def resources(assembler: str) -> dict[str, Figures]:
    """Return registers, spilled bytes and static shared memory of each kernel in the output of `ptxas -v`."""
    found: dict[str, Figures] = {}
    for part in re.split(r"Compiling entry function '", assembler)[1:]:
        name = part.split("'")[0]

        def figure(pattern: str, part: str = part) -> int:
            match = re.search(pattern, part)
            return int(match.group(1)) if match else 0

        spilled = figure(r"(\d+) bytes spill stores") + figure(r"(\d+) bytes spill loads")
        registers, shared = figure(r"Used (\d+) registers"), figure(r"(\d+) bytes smem")
        found[name] = {"registers": registers, "spilled": spilled, "shared": shared}
    return found


def compile_file(file: str, arch: str) -> tuple[dict[str, Kernel], dict[str, Figures]]:
    """Return the kernels of a file and their resources, both by their short names."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = str(Path(folder) / "kernels.cubin")
        source = str(SOURCES / f"{file}.cu")
        flags = ["-std=c++17", "-O3", f"-arch={arch}", "-cubin", "-Xptxas", "-v"]
        _, assembler = run("nvcc", *flags, source, "-o", cubin)
        listing, _ = run(disassembler(), "-hex", "-c", cubin)
    kernels, used = parse(listing), resources(assembler)
    mangled = [kernel.name for kernel in kernels]
    demangled = run("c++filt", text="\n".join(mangled))[0].splitlines()
    short = {name: short_name(each) for name, each in zip(mangled, demangled)}
    return {short[kernel.name]: kernel for kernel in kernels}, {short[name]: used[name] for name in used}


def loop_figures(hot: Hot, kernel: Kernel, arch: str) -> Figures:
    """Return instructions and cycles of each hot loop for one unit of its work."""
    result = {}
    for loop in hot.loops:
        costs = []
        for found in loop.find(kernel):
            taken = loop.taken(kernel, found)
            try:
                units = loop.units_of(kernel, path(kernel, found, taken))
                near, far = (simulate(kernel, found, taken, load, arch) for load in (CACHE, MEMORY))
            except ValueError:  # no loop, but code behind the kernel's end that branches back
                continue
            costs.append([near.instructions / units, near.cycles / units, far.cycles / units])
        if not costs and loop.absent:
            continue
        if not costs:
            raise ValueError(f"{hot.name} has no loop like `{loop.name}`: it needs {loop.needs}")
        worst = [round(max(each)) for each in zip(*costs)]
        result[loop.name] = {"unit": loop.unit, **dict(zip(("instructions", "cached", "memory"), worst))}
    return result


def figures(file: str, arch: str) -> dict[str, Figures]:
    """Return the figures of the hot kernels of a file, and of all its kernels that spill."""
    kernels, used = compile_file(file, arch)
    result: dict[str, Figures] = {}
    for hot in (each for each in HOT if each.file == file):
        kernel = kernels[hot.name]
        generic = sum(instruction.name in ("LD", "ST") for instruction in kernel.instructions)
        blocks = blocks_per_sm(arch, hot.threads, used[hot.name]["registers"], used[hot.name]["shared"])
        result[hot.name] = {
            **used[hot.name],
            "warps": blocks * (hot.threads // 32),
            "instructions": len(kernel.instructions),
            "generic": generic,
            "loops": loop_figures(hot, kernel, arch),
        }
    for name, each in used.items():
        if each["spilled"] and name not in result:
            result[name] = {"spilled": each["spilled"]}
    return {name: {"file": file, **each} for name, each in result.items()}


def measure(archs: list[str], files: list[str], jobs: int) -> Figures:
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = {(arch, file): pool.submit(figures, file, arch) for arch in archs for file in files}
        kernels: dict[str, dict[str, Figures]] = {arch: {} for arch in archs}
        for (arch, _), future in futures.items():
            kernels[arch] |= future.result()
    version = re.findall(r"V\d[\d.]+", run("nvcc", "--version")[0])[-1]
    return {"nvcc": version, "kernels": kernels}


def markdown(table: Figures) -> str:
    """Return the figures as a table for each architecture."""
    lines = [
        "Machine code of the hot kernels, by `table.py`. Compiler: nvcc " + table["nvcc"] + ".",
        "",
        "Cycles are simulated, for one warp and one unit of work, with loads from the L2 cache and from memory.",
        "Generic: loads and stores whose address space the compiler could not find.",
        "",
        "Spills of beams above 256: a block has a thread for each of up to 1024 prefixes. All 65,536 registers",
        "of an SM are then 64 a thread. With up to 256 prefixes, the same code has 152 to 160, and spills nothing.",
    ]
    for arch, kernels in table["kernels"].items():
        lines += ["", f"## {arch}", ""]
        lines.append(
            "| kernel | registers | spilled bytes | static shared | warps per SM | instructions | generic |"
        )
        lines.append("|" + " --- |" * 7)
        for name, each in kernels.items():
            cells = [
                each.get(key, "")
                for key in ("registers", "spilled", "shared", "warps", "instructions", "generic")
            ]
            lines.append(f"| `{name}` | " + " | ".join(map(str, cells)) + " |")
        lines += [
            "",
            "| kernel | loop | unit | instructions | cycles, L2 | cycles, memory |",
            "|" + " --- |" * 6,
        ]
        for name, each in kernels.items():
            for loop, cost in each.get("loops", {}).items():
                cells = [cost[key] for key in ("unit", "instructions", "cached", "memory")]
                lines.append(f"| `{name}` | {loop} | " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def save(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 1 if a kernel is worse than in the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    files = list(dict.fromkeys(hot.file for hot in HOT))
    parser.add_argument("--arch", nargs="+", choices=ARCHS, default=ARCHS)
    parser.add_argument("--file", nargs="+", choices=files, default=files)
    parser.add_argument("--jobs", type=int, default=1, help="compilers at the same time (default: 1)")
    parser.add_argument("--print", action="store_true", help="print the figures, too")
    parser.add_argument(
        "--write", action="store_true", help="write the table anew, with the parts that were measured"
    )
    options = parser.parse_args(argv)
    found = measure(options.arch, options.file, options.jobs)
    path = HERE / "table.json"
    before = json.loads(path.read_text()) if path.exists() else {"nvcc": found["nvcc"], "kernels": {}}
    if options.print:
        print(markdown(found), end="")
    worse, other = compare(before, found)
    print("\n".join([*worse, *other]) or "as in the table")
    if options.write:
        for arch, kernels in found["kernels"].items():
            old = before["kernels"].get(arch, {})
            kept = {name: each for name, each in old.items() if each["file"] not in options.file}
            before["kernels"][arch] = {**kept, **kernels}
        before["nvcc"] = found["nvcc"]
        save(path, json.dumps(before, indent=1) + "\n")
        save(path.with_suffix(".md"), markdown(before))
        return 0
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
