"""Properties of this installation: versions, CUDA support, instruction set."""

from typing import Any

import torch

from fastctc.ops import _C
from fastctc.version import __version__


def build_info() -> dict[str, Any]:
    """Return how fastctc was built and what it runs on.

    Returns:
        A dict with

        - ``version``: the version of fastctc.
        - ``torch``: the version of PyTorch in use, and ``torch_built_against``: the one at the build.
        - ``cuda``: True if CUDA kernels were built.
        - ``cuda_version``: the version of their compiler, or None.
        - ``cuda_architectures``: a list such as ``["80-real", "90-real", "90-virtual"]``. Virtual means PTX, which
          later GPUs can run.
        - ``cuda_available``: True if the CUDA kernels can be used now.
        - ``cpu_instruction_set``: "avx512", "avx2" or "baseline", the best one of the processor. The environment
          variable ``FASTCTC_CPU`` chooses another one before the import.

    >>> import fastctc
    >>> fastctc.build_info()["version"] == fastctc.__version__
    True
    """
    info = _C.build_info()
    return {
        "version": __version__,
        "torch": torch.__version__,
        "torch_built_against": info["torch_built_against"],
        "cuda": info["cuda"],
        "cuda_version": info["cuda_version"],
        "cuda_architectures": [arch for arch in info["cuda_architectures"].split(",") if arch],
        "cuda_available": info["cuda"] and torch.cuda.is_available(),
        "cpu_instruction_set": info["cpu_instruction_set"],
    }
