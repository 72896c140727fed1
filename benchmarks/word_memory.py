"""The time to load a word model, and the memory of a search with it.

Run as a program with SIDE CASE FOLDER, this file is the process of one side. It prints bytes of resident memory:
before and after the model is loaded, and the peak of a search at beam 50. Mapped pages of files count.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import word_decoders
from fastctc.scoring import Automaton, read_arpa
from memory import reset_peak
from timing import Side, measure_cpu
from word_cases import CASES
from word_decoders import PEERS, Fastctc, Weights

BEAM = 50
UTTERANCES = 10

Row = dict[str, Any]


def load_row(folder: Path, seconds: float, quick: bool) -> Row:
    """Return the times to load words.arpa with fastctc and with KenLM, and a saved file with fastctc."""
    arpa = folder / "words.arpa"
    with tempfile.TemporaryDirectory() as there:
        saved = Path(there, "words.safetensors")
        read_arpa(arpa).save(saved)
        sides = {"fastctc": Side(lambda _: read_arpa(arpa)), "saved": Side(lambda _: Automaton.load(saved))}
        try:
            kenlm = importlib.import_module("kenlm")
        except ImportError:
            pass
        else:
            config = kenlm.Config()
            config.show_progress = False
            sides["kenlm"] = Side(lambda _: kenlm.Model(str(arpa), config))
        row: Row = {"sides": measure_cpu(sides, seconds, quick)}
        row["bytes"] = {"arpa": arpa.stat().st_size, "saved": saved.stat().st_size}
    if "kenlm" in sides:
        times = {name: side["median_ms"] for name, side in row["sides"].items()}
        row["ratio"] = times["kenlm"] / times["fastctc"]
    return row


def memory_rows(folder: Path, sides: dict[str, list[str]]) -> list[Row]:
    """Return the memory of each side of each case, from a process of its own."""
    rows = []
    for case, names in sides.items():
        for name in names:
            command = [sys.executable, str(Path(__file__).resolve()), name, case, str(folder)]
            done = subprocess.run(command, capture_output=True, text=True)
            row: Row = {"case": case, "side": name}
            if done.returncode:
                rows.append(row | {"error": done.stderr.strip().splitlines()[-1]})
            else:
                rows.append(row | json.loads(done.stdout.splitlines()[-1]))
    return rows


def resident(figure: str = "VmRSS") -> int:
    """Return the bytes in memory now, or with "VmHWM" their peak since `reset_peak` (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{figure}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no line {figure}")


def main(side: str, case_name: str, folder: str) -> None:
    torch.set_num_threads(1)
    case = CASES[case_name](Path(folder), "report").first(UTTERANCES)
    if side != "fastctc":
        word_decoders.choose([side])  # imports its modules
    reset_peak()
    before = resident()
    searcher = Fastctc(case) if side == "fastctc" else PEERS[side].make(case)
    search = searcher.tune(BEAM, Weights(1.0, 1.0))
    loaded = resident()
    search(searcher.prepare(case.utterances))
    print(json.dumps({"before": before, "loaded": loaded, "peak": resident("VmHWM")}))


if __name__ == "__main__":
    main(*sys.argv[1:])
