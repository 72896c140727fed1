"""Translate PTX, the output of nvcc, into C++ that runs on the fibers of the CUDA emulation.

- `types`: the types of PTX and their C++ names.
- `parser`: PTX text to functions, variables and instructions.
- `opcodes`: one table of the instructions that compute values. An opcode that is new goes there.
- `forms`: the other instructions: memory, branches, calls, barriers, warp collectives.
- `emitter`: one kernel to one C++ file.

The C++ functions that these instructions call are in `../arithmetic.h` and `../kernel.h`.
"""
