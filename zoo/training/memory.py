"""Memory of a process on a CPU: kept from step to step."""

import ctypes
import platform

# Options of mallopt(3) by number, and what they are set to.
_OPTIONS = {
    "M_MMAP_MAX": (-4, 0),  # no block has a mapping of its own, which would end with it
    "M_TRIM_THRESHOLD": (-1, -1),  # the end of the heap is never given back
    "M_TOP_PAD": (-2, 256 << 20),  # the heap grows by so many bytes at a time
    "M_ARENA_MAX": (-8, 1),  # the backward pass, a thread, uses what the forward pass has freed
}


def keep_freed_memory() -> bool:
    """Have the C library keep what is freed, for the next step to use.

    glibc gives every large block back to the system when it is freed, and the next one like it is faulted in
    page by page, which takes time: a model that makes kernels for each image takes gigabytes in such blocks
    at every step. For the process this cannot be undone, and it may hold more memory than it needs at a time.
    Call it before threads are started: those have memory of their own.

    Returns:
        Whether there is a glibc that took the options; without one nothing changes.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    taken = [mallopt(option, value) for option, value in _OPTIONS.values()]
    return all(taken)
