from typing import Any

LARGEST_ARENA: int
BEAM_NODE_INTS: int

def build_info() -> dict[str, Any]: ...
def beam_state_bytes(beam_size: int) -> int: ...
