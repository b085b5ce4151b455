"""How fast two cores hand a cache line to each other, where a run has two threads and no more cores.

A virtual machine's cores move: at one moment a line crosses twice as fast as at another, probably because
they share a cache then and do not later. A network of hundreds of small operations takes far longer on cores
that are far from each other, a static ResNet hardly. So figures of two threads are kept apart by it; see
:func:`cores`.
"""

import contextlib
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from zoo.errors import ZooError
from zoo.machine import usable_cores

NEAR, FAR = "near", "far"
CORES = ("", NEAR, FAR)
"""In the order of tables; the first is where nobody watched."""

Watch = Callable[[], int]
"""Returns the nanoseconds from one core to the other and back."""

_NEAREST_FAR = 300
"""Nanoseconds there and back from which on cores are far, Python's own steps included.

On the machine of ``benchmarks/amd_zen5.json`` they are 140 to 190, 220 to 300 or 300 to 500, and resnet18
takes as long in the second case as in the first.
"""
_PARTS, _TRIPS = 20, 300
_PATIENCE = 1_000_000
"""How often to look for an answer before asking whether anyone is there: some hundredths of a second."""

_ENDED = "the process that watches how far the cores are apart ended; run again."

_ANSWER = """
import mmap, os, sys
os.sched_setaffinity(0, {int(sys.argv[2])})
parent = os.getppid()
with open(sys.argv[1], "r+b") as file:
    flag = mmap.mmap(file.fileno(), 0)
print(flush=True)
for line in sys.stdin:
    for _ in range(int(line)):
        while not flag[0]:
            for _ in range(1_000_000):
                if flag[0]:
                    break
            else:
                if os.getppid() != parent:
                    sys.exit()
        flag[0] = 0
"""
"""A process that waits without taking a core, and when told a number answers so many times.

It does not outlive the one that it answers.
"""


def cores(nanoseconds: int) -> str:
    """Return how far the cores are apart that took so long there and back: :data:`NEAR` or :data:`FAR`."""
    return NEAR if nanoseconds < _NEAREST_FAR else FAR


@contextlib.contextmanager
def watching(threads: int) -> Iterator[Watch | None]:
    """Yield what measures the way between the cores that two threads run on.

    None where these are not known: where the process may use more than two cores or none can be pinned to
    one, and with any other number of threads.
    """
    if threads != 2 or usable_cores() != 2:
        yield None
        return
    first, last = sorted(os.sched_getaffinity(0))
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(mmap.PAGESIZE))
        file.flush()
        with (
            mmap.mmap(file.fileno(), mmap.PAGESIZE) as flag,
            subprocess.Popen(
                [sys.executable, "-IS", "-c", _ANSWER, file.name, str(last)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ) as other,
        ):
            assert other.stdin is not None
            assert other.stdout is not None
            asked, ready = other.stdin, other.stdout
            started = ready.readline()

            def watch() -> int:
                try:
                    print(_PARTS * _TRIPS, file=asked, flush=True)
                except OSError:
                    raise ZooError(_ENDED) from None
                with _on(first):
                    # The fastest part: the others have what else the machine did.
                    return min(_there_and_back(flag, other) for _ in range(_PARTS))

            try:
                yield watch if started else None
            finally:
                other.kill()
                with contextlib.suppress(OSError):
                    asked.close()  # what was not read stays unsaid


def _there_and_back(flag: mmap.mmap, other: subprocess.Popen[str]) -> int:
    """Return the mean nanoseconds of some trips.

    Raises:
        ZooError: the other process ended.
    """
    start = time.perf_counter_ns()
    for _ in range(_TRIPS):
        flag[0] = 1
        while flag[0]:
            for _ in range(_PATIENCE):
                if not flag[0]:
                    break
            else:
                if other.poll() is not None:
                    raise ZooError(_ENDED)
    return (time.perf_counter_ns() - start) // _TRIPS


@contextlib.contextmanager
def _on(core: int) -> Iterator[None]:
    """Keep this thread on a core meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
