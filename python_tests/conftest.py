"""The machines a test runs on.

`device` is "cpu", "emulated", "ptx" or "cuda".

- Emulated: the CUDA kernels, compiled by the host compiler against an emulation of CUDA's threads, on CPU tensors.
  While such a test runs they stand in for the CPU kernels of `torch.ops.fastctc`, so everything above them is what
  a user calls.
- Ptx: the same with nvcc's PTX, translated into C++ (csrc/tests/ptx). It needs nvcc, and no GPU. Only the tests
  marked `ptx` run there, unless FASTCTC_DEVICES names it.

    FASTCTC_REQUIRE_CUDA=1          without a GPU the cuda tests fail instead of being skipped
    FASTCTC_EMULATED_LIBRARY=PATH   a library of emulated kernels that is built already
    FASTCTC_PTX_LIBRARY=PATH        a library of translated kernels that is built already
    FASTCTC_PTX_SEED=7              the results of ex2, lg2 and rcp move within their error on a GPU
    FASTCTC_DEVICES=cpu,ptx         only these, with all of their tests
"""

from __future__ import annotations

import fcntl
import importlib
import os
import platform
import shutil
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
DEVICES = ("cpu", "emulated", "ptx", "cuda")
CUDA_MACHINES = DEVICES[1:]

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

    @property
    def is_emulated(self) -> bool:
        return self.name in ("emulated", "ptx")


def pytest_configure(config: pytest.Config) -> None:
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))  # of `pytest -n`, which share the cores
    if workers > 1:
        threads = max(1, torch.get_num_threads() // workers)
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # of the processes that tests start
    config.addinivalue_line("markers", "slow: left out of the fast subset, `pytest -m 'not slow'`")
    config.addinivalue_line("markers", "slow_emulated: slow where it is emulated")
    config.addinivalue_line("markers", "large: too large to emulate; runs on cpu and cuda")
    config.addinivalue_line("markers", "ptx: runs on ptx without being asked for")


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept, left_out = [], []
    for item in items:
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        machines = {value for value in parameters if isinstance(value, str)} & {"emulated", "ptx"}
        if machines and item.get_closest_marker("slow_emulated"):
            item.add_marker("slow")
        by_default = "ptx" not in machines or item.get_closest_marker("ptx")
        (kept if by_default or "FASTCTC_DEVICES" in os.environ else left_out).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


def is_chosen(machine: str) -> bool:
    """Return False for what FASTCTC_DEVICES leaves out."""
    return machine in os.environ.get("FASTCTC_DEVICES", ",".join(DEVICES)).split(",")


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
    if not is_chosen(name):
        pytest.skip("not in FASTCTC_DEVICES")
    if name == "cuda":
        require_cuda()
        yield Device(name, torch.device("cuda"))
    elif name in ("emulated", "ptx"):
        if request.node.get_closest_marker("large"):
            pytest.skip("too large to emulate")
        request.getfixturevalue(f"{name}_library")
        from fastctc import direct

        with_emulation = override_cpu_kernels(f"fastctc_{name}")
        yield Device(name, torch.device("cpu"))
        with_emulation._destroy()
        direct.enabled = True
    else:
        yield Device(name, torch.device("cpu"))


def cuda_kernels(request: pytest.FixtureRequest, machine: str) -> tuple[str, str]:
    """Return the device and the namespace of the ops for one of CUDA_MACHINES; skip where that cannot run."""
    if not is_chosen(machine):
        pytest.skip("not in FASTCTC_DEVICES")
    if machine == "cuda":
        require_cuda()
        return "cuda", "fastctc"
    request.getfixturevalue(f"{machine}_library")
    return "cpu", f"fastctc_{machine}"


def require_cuda() -> None:
    if torch.cuda.is_available():
        return
    if os.environ.get("FASTCTC_REQUIRE_CUDA") == "1":
        pytest.fail("FASTCTC_REQUIRE_CUDA=1, but torch finds no CUDA device")
    pytest.skip("no CUDA device")


@pytest.fixture(scope="session")
def emulated_library() -> Path:
    """Return the emulated kernels, `torch.ops.fastctc_emulated`; build them if needed."""
    return load_kernels("emulated")


@pytest.fixture(scope="session")
def ptx_library() -> Path:
    """Return the kernels translated from PTX, `torch.ops.fastctc_ptx`; build them if needed."""
    if shutil.which(os.environ.get("CUDACXX", "nvcc")) is None or platform.machine() != "x86_64":
        pytest.skip("no nvcc on x86-64, whose PTX is to be run")
    return load_kernels("ptx")


def load_kernels(machine: str) -> Path:
    """Load the library of the kernels for "emulated" or "ptx"; build it if needed."""
    if not is_chosen(machine):
        pytest.skip("not in FASTCTC_DEVICES")
    import fastctc  # noqa: F401  defines the schemas that the emulated operations share

    given = os.environ.get(f"FASTCTC_{machine.upper()}_LIBRARY")
    path = Path(given) if given else build_library(f"fastctc_{machine}", REPOSITORY / "build" / "emulated")
    torch.ops.load_library(str(path))
    return path


def build_library(target: str, folder: Path) -> Path:
    """Build a library unless it is up to date. Of several processes one builds, and the others wait."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _build(target, folder)


def _build(target: str, folder: Path) -> Path:
    options = ["-DFASTCTC_TESTS=ON", "-DFASTCTC_CUDA=OFF", f"-DPython_EXECUTABLE={sys.executable}"]
    for command in (
        ["cmake", "-S", str(REPOSITORY), "-B", str(folder), "-G", "Ninja", *options],
        ["cmake", "--build", str(folder), "--target", target],
    ):
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode:
            pytest.fail(f"{target} does not build: {' '.join(command)}\n{done.stdout}", pytrace=False)
    (path,) = folder.rglob(f"lib{target}.so")
    return path


def operators(namespace: str) -> list[str]:
    """Return the names, without namespace, of the operators registered under it; overloads as `name.overload`."""
    names = torch._C._dispatch_get_all_op_names()
    return sorted(name.removeprefix(f"{namespace}::") for name in names if name.startswith(f"{namespace}::"))


def override_cpu_kernels(namespace: str) -> torch.library.Library:
    """Send `torch.ops.fastctc` on CPU tensors to the ops of a namespace, until the result is destroyed.

    Calls without the dispatcher, which would reach the CPU kernels, are off from then on.
    """
    from fastctc import direct

    direct.enabled = False
    library = torch.library.Library("fastctc", "IMPL")
    names = operators(namespace)
    assert names, f"no operator is registered under {namespace}"
    for name in names:
        packet, _, overload = name.partition(".")
        emulated = getattr(getattr(getattr(torch.ops, namespace), packet), overload or "default")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that a kernel is overridden
            library.impl(name, emulated, "CPU", allow_override=True)
    return library
