"""The machines a test runs on.

`device` is "cpu", "emulated" or "cuda". Emulated means the CUDA kernels, compiled by the host compiler
against an emulation of CUDA's threads, on CPU tensors: while such a test runs they stand in for the CPU
kernels of `torch.ops.fastctc`, so everything above them is what a user calls.

    FASTCTC_REQUIRE_CUDA=1          without a GPU the cuda tests fail instead of being skipped
    FASTCTC_EMULATED_LIBRARY=PATH   a library of emulated kernels that is built already
    FASTCTC_DEVICES=cpu,cuda        only these
"""

from __future__ import annotations

import fcntl
import importlib
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parent.parent
DEVICES = ("cpu", "emulated", "cuda")

# `python -m pytest` puts the checkout on the path, where its fastctc/ would hide the installed package. No test
# file has been imported yet, and each process of `pytest -n` comes here too.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != REPOSITORY]

# Random cases are drawn from a fixed seed; `device` is the same for all examples of one test, as it should
# be.
settings.register_profile(
    "fastctc",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("fastctc")


@dataclass(frozen=True)
class Device:
    """Where a test runs: the name of the machine, and the device of the tensors."""

    name: str
    torch: torch.device

    @property
    def runs_cuda_kernels(self) -> bool:
        return self.name != "cpu"


def pytest_configure(config: pytest.Config) -> None:
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))  # of `pytest -n`, which share the cores
    if workers > 1:
        threads = max(1, torch.get_num_threads() // workers)
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # of the processes that tests start
    config.addinivalue_line("markers", "slow: left out of the fast subset, `pytest -m 'not slow'`")
    config.addinivalue_line("markers", "slow_emulated: slow where it is emulated")
    config.addinivalue_line("markers", "large: too large to emulate; runs on cpu and cuda")


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow_emulated") and "emulated" in item.callspec.params.values():
            item.add_marker("slow")


def slow(*values: Any) -> list[Any]:
    """Return parameters whose cases are slow; a tuple has a value for each of several arguments."""
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
        for value in values
    ]


@pytest.fixture(scope="session", autouse=True)
def _away_from_the_sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run tests in an empty folder: in a checkout `python -m` would find the sources, not the installed package."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("cwd"))
    yield
    os.chdir(before)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a file of benchmarks/ by name; as in a run, it finds the files beside it."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    return importlib.import_module


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    name = request.param
    if name not in os.environ.get("FASTCTC_DEVICES", ",".join(DEVICES)).split(","):
        pytest.skip("not in FASTCTC_DEVICES")
    if name == "cuda":
        require_cuda()
        yield Device(name, torch.device("cuda"))
    elif name == "emulated":
        if request.node.get_closest_marker("large"):
            pytest.skip("too large to emulate")
        request.getfixturevalue("emulated_library")
        with_emulation = override_cpu_kernels()
        yield Device(name, torch.device("cpu"))
        with_emulation._destroy()
    else:
        yield Device(name, torch.device("cpu"))


def cuda_kernels(request: pytest.FixtureRequest, machine: str) -> tuple[str, str]:
    """Return the device and the namespace of the ops for "emulated" or "cuda"; skip where that cannot run."""
    if machine not in os.environ.get("FASTCTC_DEVICES", machine).split(","):
        pytest.skip("not in FASTCTC_DEVICES")
    if machine == "cuda":
        require_cuda()
        return "cuda", "fastctc"
    request.getfixturevalue("emulated_library")
    return "cpu", "fastctc_emulated"


def require_cuda() -> None:
    if torch.cuda.is_available():
        return
    if os.environ.get("FASTCTC_REQUIRE_CUDA") == "1":
        pytest.fail("FASTCTC_REQUIRE_CUDA=1, but torch finds no CUDA device")
    pytest.skip("no CUDA device")


@pytest.fixture(scope="session")
def emulated_library() -> Path:
    """Return the emulated kernels, `torch.ops.fastctc_emulated`; build them if needed."""
    if "emulated" not in os.environ.get("FASTCTC_DEVICES", ",".join(DEVICES)).split(","):
        pytest.skip("not in FASTCTC_DEVICES")
    import fastctc  # noqa: F401  defines the schemas that the emulated operations share

    given = os.environ.get("FASTCTC_EMULATED_LIBRARY")
    path = Path(given) if given else build_emulated_library(REPOSITORY / "build" / "emulated")
    torch.ops.load_library(str(path))
    return path


def build_emulated_library(folder: Path) -> Path:
    """Build the library unless it is up to date. Of several processes one builds, and the others wait."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _build(folder)


def _build(folder: Path) -> Path:
    options = ["-DFASTCTC_TESTS=ON", "-DFASTCTC_CUDA=OFF", f"-DPython_EXECUTABLE={sys.executable}"]
    for command in (
        ["cmake", "-S", str(REPOSITORY), "-B", str(folder), "-G", "Ninja", *options],
        ["cmake", "--build", str(folder), "--target", "fastctc_emulated"],
    ):
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode:
            pytest.fail(
                f"the emulated kernels do not build: {' '.join(command)}\n{done.stdout}", pytrace=False
            )
    (path,) = folder.rglob("libfastctc_emulated.so")
    return path


def operators(namespace: str) -> list[str]:
    """Return the names, without namespace, of the operators registered under it; overloads as `name.overload`."""
    names = torch._C._dispatch_get_all_op_names()
    return sorted(name.removeprefix(f"{namespace}::") for name in names if name.startswith(f"{namespace}::"))


def override_cpu_kernels() -> torch.library.Library:
    """Send `torch.ops.fastctc` on CPU tensors to the emulated kernels, until the result is destroyed."""
    library = torch.library.Library("fastctc", "IMPL")
    names = operators("fastctc_emulated")
    assert names, "the emulated library registers no operator"
    for name in names:
        packet, _, overload = name.partition(".")
        emulated = getattr(getattr(torch.ops.fastctc_emulated, packet), overload or "default")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that a kernel is overridden
            library.impl(name, emulated, "CPU", allow_override=True)
    return library
