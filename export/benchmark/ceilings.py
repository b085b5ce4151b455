"""The two roofs of a roofline: what this machine reads and multiplies at most, as torch reaches it."""

import time
from collections.abc import Callable

import torch

_NUMBERS = 1 << 27  # half a gigabyte: more than caches hold
_SIDE = 1024
_TIMES = 7


def ceilings(threads: int, numbers: int = _NUMBERS, side: int = _SIDE) -> dict[str, float]:
    """Return ``read``, bytes a second from memory, and ``product``, multiplies a second of a matrix product.

    Args:
        threads: that torch may use; it is left with as many as it had.
        numbers: how many to read.
        side: of the matrices.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        row, matrix = torch.ones(numbers), torch.ones(side, side)
        return {
            "read": row.numel() * row.element_size() / _least(row.sum),
            "product": side**3 / _least(lambda: matrix @ matrix),
        }
    finally:
        torch.set_num_threads(before)


def _least(call: Callable[[], object]) -> float:
    """Return the least time of a few calls: what a busy neighbour adds is not the machine's."""
    times = []
    for _ in range(_TIMES):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
