"""How fast two cores hand a cache line to each other, where a run has a thread for every core.

A virtual machine's cores move: at one moment they share a cache, at another they do not, and then all that
threads share takes several times as long to cross. A network of hundreds of small operations feels it in each
of them, a static ResNet hardly. So figures of several threads are kept apart by it; see :func:`cores`.
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

_NEAREST_FAR = 250
"""Nanoseconds there and back from which on cores are far, Python's own steps included: they take some 50."""
_PARTS, _TRIPS = 20, 300
_PATIENCE = 1_000_000
"""How often to look for an answer before asking whether anyone is there: some hundredths of a second."""

_ANSWER = """
import mmap, os, sys
os.sched_setaffinity(0, {int(sys.argv[2])})
with open(sys.argv[1], "r+b") as file:
    flag = mmap.mmap(file.fileno(), 0)
print(flush=True)
for line in sys.stdin:
    for _ in range(int(line)):
        while not flag[0]:
            pass
        flag[0] = 0
"""
"""A process that waits without taking a core, and when told a number answers so many times."""


def cores(nanoseconds: int) -> str:
    """Return how far the cores are apart that took so long there and back: :data:`NEAR` or :data:`FAR`."""
    return NEAR if nanoseconds < _NEAREST_FAR else FAR


@contextlib.contextmanager
def watching(threads: int) -> Iterator[Watch | None]:
    """Yield what measures the way between the first and the last of the cores that ``threads`` run on.

    None where that is not known: with one thread, with more cores than threads, and where no process can be
    pinned to a core.
    """
    if threads < 2 or usable_cores() != threads:
        yield None
        return
    first, *_, last = sorted(os.sched_getaffinity(0))
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
                print(_PARTS * _TRIPS, file=asked, flush=True)
                with _on(first):
                    # The fastest part: the others have what else the machine did.
                    return min(_there_and_back(flag, other) for _ in range(_PARTS))

            try:
                yield watch if started else None
            finally:
                other.kill()


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
                    raise ZooError("the process that watches how far the cores are apart ended; run again.")
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
