"""The number of blocks that an SM has at the same time, from the tables of NVIDIA's programming guide."""

from __future__ import annotations

REGISTERS = 65536  # of an SM
REGISTERS_TOGETHER = 256  # a warp gets a multiple
SHARED_TOGETHER, SHARED_OF_SYSTEM = (
    128,
    1024,
)  # bytes; a block gets a multiple, and the system has some of each
LIMITS = {  # warps, blocks and bytes of shared memory of an SM
    "sm_75": (32, 16, 64 * 1024),
    "sm_80": (64, 32, 164 * 1024),
    "sm_86": (48, 16, 100 * 1024),
    "sm_89": (48, 24, 100 * 1024),
    "sm_90": (64, 32, 228 * 1024),
    "sm_100": (64, 32, 228 * 1024),
    "sm_120": (48, 24, 100 * 1024),
}


def up_to(multiple: int, x: int) -> int:
    return -(-x // multiple) * multiple


def blocks_per_sm(arch: str, threads: int, registers: int, shared: int) -> int:
    """Return the number of blocks.

    Args:
        threads: of a block.
        registers: of a thread.
        shared: bytes of shared memory of a block, static and dynamic.
    """
    most_warps, most_blocks, most_shared = LIMITS[arch]
    warps = up_to(32, threads) // 32
    of_warp = up_to(REGISTERS_TOGETHER, registers * 32)
    system = 0 if arch == "sm_75" else SHARED_OF_SYSTEM
    by_shared = most_shared // max(1, up_to(SHARED_TOGETHER, shared) + system)
    # Registers belong to one of four parts of an SM, each with a quarter of the warps.
    by_registers = REGISTERS // 4 // of_warp * 4 // warps
    return min(most_warps // warps, most_blocks, by_shared, by_registers)
