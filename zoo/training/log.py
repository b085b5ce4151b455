"""The log of a run: a line of JSON an epoch, and what of it is printed."""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from zoo.cli import atomic_path

FILE = "log.jsonl"

_STATUS = Path("/proc/self/status")


def append(run_dir: Path, record: dict[str, Any]) -> None:
    """Add the record of an epoch."""
    with (run_dir / FILE).open("a") as log:
        log.write(json.dumps(record) + "\n")


def cut(run_dir: Path, epochs: int) -> None:
    """Keep the records of the first ``epochs`` epochs."""
    log = run_dir / FILE
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    with atomic_path(log) as path:
        path.write_text("".join(lines[:epochs]))


def summary(record: dict[str, Any], epochs: int) -> str:
    """Return the line to print about an epoch of ``epochs``."""
    words = [
        f"epoch {record['epoch']}/{epochs} at {record['size']}px",
        f"loss {record['loss']:.3f}",
        f"train {record['train_top1']:.1f} %",
        f"{record['images_per_second']:.0f} images/s",
    ]
    if "top1" in record:
        words.append(f"test {record['top1']:.2f} %")
    return ", ".join(words)


def peak_memory_mb() -> int | None:
    """Return the largest memory held so far, on the GPU or else by the process, in MiB; None: unknown."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20)
    if _STATUS.exists():  # not getrusage: that starts at what the parent held when it made this process
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
        return round(peaks[0] / 2**10) if peaks else None
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))
