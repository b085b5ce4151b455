"""How much memory an artifact takes, seen in a process of its own.

The figure is the peak of the process's resident memory during a few calls, less what it held before it loaded
the artifact. So the weights count, copies of them that the runtime packs for itself, the activations and the
code that it touches; the interpreter and the imported libraries do not.
"""

import multiprocessing
import sys
from collections.abc import Callable
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from export.base import RUNTIMES, runtime
from export.benchmark.plan import Candidate

_CALLS = 3
_PATIENCE = 300.0


def peak_memory(candidate: Candidate, path: Path, input_size: tuple[int, int, int]) -> int | None:
    """Return the bytes that a candidate's artifact takes on the CPU; None where they cannot be seen."""
    if candidate.runtime not in RUNTIMES or candidate.device != "cpu" or sys.platform == "win32":
        return None
    context = _context()
    ours, theirs = context.Pipe(duplex=False)
    shape = (candidate.batch, *input_size)
    child = context.Process(target=_probe, args=(theirs, candidate.runtime, path, shape, candidate.threads))
    child.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(_PATIENCE) else None
    except EOFError:  # it died
        return None
    finally:
        child.kill()
        child.join()
        ours.close()


@cache
def _context() -> Any:
    """Return the way to start children: forked from a server that has imported, and not yet run, everything.

    A child of this process would share the weights that lie here already.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([where.partition(":")[0] for where in RUNTIMES.values()])
    return context


def _probe(answer: Connection, name: str, path: Path, shape: tuple[int, ...], threads: int) -> None:
    """Load and run an artifact; send the bytes by which memory rose."""
    images = np.zeros(shape, np.float32)
    load: Callable = runtime(name).load
    before = _resident()
    predict = load(path, "cpu", threads)
    for _ in range(_CALLS):
        predict(images)
    answer.send(_peak() - before)
    answer.close()


def _resident() -> int:
    return _status("VmRSS") or _peak()


def _peak() -> int:
    import resource  # there is none on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(key: str) -> int | None:
    """Return a figure of Linux's view of this process, in bytes."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)
