"""The result of a benchmark: what it depends on, as a table in Markdown, and its files."""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

import fastctc
from memory import RESOLUTION
from sides import timed, title
from timing import copy_bandwidth

Row = dict[str, Any]


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return what the figures depend on: processor, threads, load, versions."""
    machine = {
        "cpu": describe_processor(),
        "cores": os.cpu_count(),
        "cores_allowed": len(os.sched_getaffinity(0)),
        "instruction_set": fastctc.build_info()["cpu_instruction_set"],
        "load_average": list(os.getloadavg()),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        machine |= {"gpu": properties.name, "l2_bytes": properties.L2_cache_size}
        machine["copy_bytes_per_s"] = copy_bandwidth(device)
    return machine


def describe_processor() -> str:
    """Return a processor's name, family and model, and the sizes of its caches; less where Linux does not run."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    said = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    name = said.get("model name") or platform.processor() or platform.machine()
    numbers = [f"{each.split()[-1]} {said[each]}" for each in ("cpu family", "model") if each in said]
    folders = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"))
    caches = [(folder / "size").read_text().strip() for folder in folders]
    return f"{', '.join([name, *numbers])}{'; caches ' if caches else ''}{', '.join(caches)}"


def describe_versions() -> dict[str, Any]:
    info = fastctc.build_info()
    del info["cpu_instruction_set"]
    cudnn = torch.backends.cudnn.version()
    return {"python": platform.python_version(), "fastctc": info.pop("version"), "cudnn": cudnn, **info}


def begin(benchmark: str, options: argparse.Namespace) -> Row:
    """Return a result without figures."""
    return {
        "benchmark": benchmark,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": describe_machine(torch.device(options.device)),
        "versions": describe_versions(),
        "device": options.device,
        "threads": torch.get_num_threads(),
        "quick": options.quick,
        "note": options.note,
        "results": [],
        "sweeps": {},
    }


def table(columns: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return lines + ["| " + " | ".join(cells) + " |" for cells in rows]


def number(value: float | None, form: str, mark: str = "") -> str:
    return "" if value is None or not math.isfinite(value) else mark + format(value, form) + mark


def megabytes(size: int | None) -> str:
    if size is None:
        return ""
    return f"< {RESOLUTION / 1e6:.2f}" if size < RESOLUTION else f"{size / 1e6:.2f}"


def timing_table(rows: list[Row]) -> list[str]:
    """Return a table of times and ratios, with errors, floors and memory where they were measured."""
    sides = timed(rows)
    peers = [side for side in sides if not side.startswith("fastctc")]
    floor = any("floor_ms" in row for row in rows)
    memory = [
        s for s in ("fastctc", "torch") if any("extra_bytes" in row["sides"].get(s, {}) for row in rows)
    ]
    columns = ["shape", "T, N, C, S", "lengths", "from"]
    columns += [f"{title(side)} ms" for side in sides] + ["floor ms"] * floor
    columns += [f"{title(peer)} / fastctc" for peer in peers]
    columns += ["fastctc's gradient error", "torch's"]
    columns += [f"{side} MB" for side in memory] + ["torch MB / fastctc MB"] * (len(memory) == 2)
    lines = []
    for row in rows:
        of = row["sides"]
        cells = [row["shape"], ", ".join(str(row[size]) for size in "TNCS"), row["lengths"], row["input"]]
        cells += [number(of.get(side, {}).get("median_ms"), ".3f") for side in sides]
        cells += [number(row.get("floor_ms"), ".4f")] * floor
        cells += [
            number(row.get("ratio", {}).get(peer), ".1f", "**" if peer == "torch" else "") for peer in peers
        ]
        cells += [number(of.get(side, {}).get("gradient_error"), ".1e") for side in ("fastctc", "torch")]
        sizes = [of.get(side, {}).get("extra_bytes") for side in memory]
        cells += [megabytes(size) for size in sizes]
        cells += [number(row.get("memory_ratio"), ".2f", "**")] * (len(memory) == 2)
        lines.append([*cells, "; ".join(row["notes"])])
    return table([*columns, "notes"], lines)


def accuracy_table(rows: list[Row]) -> list[str]:
    columns = ["T, N, C, S", "seeds", "fastctc", "torch", "torch / fastctc"]
    lines = []
    for row in rows:
        cells = [", ".join(str(row[size]) for size in "TNCS"), str(len(row["seeds"]))]
        cells += [number(row["worst"][side], ".1e") for side in ("fastctc", "torch")]
        lines.append([*cells, number(row["times_worse"], ".0f", "**")])
    return table(columns, lines)


def heading(what: str, result: dict[str, Any]) -> str:
    """Return what was measured, where, and with which versions."""
    machine, versions = result["machine"], result["versions"]
    where = machine.get("gpu", f"{machine['cpu']} ({machine['instruction_set']})")
    packages = dict.fromkeys(each for version in result["peers"].values() for each in version.split(", "))
    peers = "".join(f"; {package}" for package in packages)
    left_out = f" Not installed: {', '.join(result['not_installed'])}." if result["not_installed"] else ""
    return (
        f"{what}. {where}; {result['threads']} CPU thread(s), load average "
        f"{machine['load_average'][0]:.1f} on {machine['cores']} core(s); PyTorch {versions['torch']}, "
        f"fastctc {versions['fastctc']}{peers}; {result['date']}.{left_out} "
        f"{result['note']}"
    ).rstrip()


def markdown(result: dict[str, Any]) -> str:
    """Return the losses as tables, below a description of machine and versions."""
    lines = [heading("`ctc_loss`, loss and gradient, float32", result)]
    if result["results"]:
        lines += ["", *timing_table(result["results"])]
        lines += [
            "",
            "Gradient errors are relative to the largest entry of the exact gradient of the logits.",
        ]
        lines[-1] += " MB: the most memory the call needs beyond its input and the gradient."
    for variable, rows in result["sweeps"].items():
        lines += ["", f"{variable} swept:", "", *timing_table(rows)]
    if result["accuracy"]:
        lines += ["", "Largest absolute error of the gradient of the logits against float64; logits with a"]
        lines[-1] += f" standard deviation of {result['accuracy'][0]['deviation']:g}:"
        lines += ["", *accuracy_table(result["accuracy"])]
    return "\n".join(lines) + "\n"


def without_nan(value: Any) -> Any:
    """Replace NaN and infinity, which JSON lacks, by null."""
    if isinstance(value, dict):
        return {key: without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def save(folder: Path, result: dict[str, Any], text: str) -> None:
    """Write the files of `write` and, if matplotlib is there, plots beside them; print where they are."""
    path = write(folder, result, text)
    print(path)
    try:
        import plots
    except ModuleNotFoundError as error:
        print(f"no plots: {error}", file=sys.stderr)
        return
    for each in plots.write(path, result):
        print(each)


def write(folder: Path, result: dict[str, Any], text: str) -> Path:
    """Write DIR/BENCHMARK-DATE-MACHINE.json and .md (`text`), each complete or not at all."""
    machine = result["machine"]
    kind = "cuda-" + machine["gpu"] if "gpu" in machine else "cpu-" + machine["instruction_set"]
    kind = kind.lower().replace(" ", "-").replace("/", "-") + ("-quick" if result["quick"] else "")
    path = folder / f"{result['benchmark']}-{result['date'][:10]}-{kind}.json"
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        path: json.dumps(without_nan(result), indent=1, allow_nan=False) + "\n",
        path.with_suffix(".md"): text,
    }
    for final, text in texts.items():
        temporary = final.with_name(f"{final.name}.{os.getpid()}")
        temporary.write_text(text)
        temporary.replace(final)
    return path
