"""How much memory an artifact takes, seen in a process of its own.

On the CPU the figure is the peak of the process's resident memory while it loads the artifact and makes a
few calls, less what it held before. So the weights count, copies of them that the runtime packs for itself,
the activations, and what the runtime imports when it first loads a file, which torch's own formats do; the
interpreter and what was imported before do not. On CUDA it is the device's memory that
is gone after these calls, less what was gone before: runtimes keep what they once took.
"""

import multiprocessing
import sys
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.benchmark.engine import FileEngine, Setting

_CALLS = 3
_PATIENCE = 300.0
_STATUS, _RESET_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_memory(engine: str, path: Path, setting: Setting) -> int | None:
    """Return the bytes that an artifact takes; None where they cannot be seen.

    Args:
        engine: a key of ``ENGINES``, of one that runs files.
        path: the artifact.
        setting: how to run it.
    """
    if sys.platform != "linux":
        return None
    context = _context()
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_probe, args=(theirs, engine, path, setting))
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
    context.set_forkserver_preload(["export.benchmark.engines", "onnxruntime"])
    return context


def _probe(answer: Connection, name: str, path: Path, setting: Setting) -> None:
    """Load and run an artifact; send the bytes by which memory rose."""
    from export.benchmark.engines import ENGINES  # in the child, where it is there already

    engine = ENGINES[name]
    assert isinstance(engine, FileEngine)
    torch.set_num_threads(setting.threads)
    engine.available(setting.device)  # it imports the runtime
    images = np.zeros((setting.batch, *setting.input_size), np.float32)
    on_cpu = setting.device == "cpu"
    if on_cpu:
        before = _resident("VmRSS")
        _RESET_PEAK.write_text("5", encoding="ascii")
    else:
        before = _taken_on_cuda()
    bound = engine.load(path, setting)(images)
    for _ in range(_CALLS):
        bound.call()
    answer.send((_resident("VmHWM") if on_cpu else _taken_on_cuda()) - before)
    answer.close()


def _resident(key: str) -> int:
    """Return a figure of Linux's view of this process, in bytes."""
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def _taken_on_cuda() -> int:
    """Return how much of the device's memory is taken, in bytes, by whomever."""
    free, total = torch.cuda.mem_get_info()
    return total - free
