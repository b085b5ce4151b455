"""The log of a run: a line of JSON an epoch, what of it is printed, and its learning curve."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import torch

from zoo.cli import atomic_path

FILE = "log.jsonl"
PICTURE = "learning_curve.png"
#: Keys of a record for the clean top-1 of the averaged weights: of test images, of held-out ones.
TEST, HELD_OUT = "top1", "top1_held_out"

_EVALUATED = {TEST: "test", HELD_OUT: "held out"}

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
    words += [f"{of} {record[name]:.2f} %" for name, of in _EVALUATED.items() if name in record]
    return ", ".join(words)


def draw(run_dir: Path) -> None:
    """Draw the loss and the accuracies of the log over its epochs, where matplotlib is installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = [json.loads(line) for line in (run_dir / FILE).read_text().splitlines()]
    epochs = [record["epoch"] for record in records]
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, sharex=True)
    above.plot(epochs, [record["loss"] for record in records], color="#0072B2")
    above.set_ylabel("training loss")
    below.plot(
        epochs, [record["train_top1"] for record in records], color="#0072B2", label="training, warped"
    )
    for name, of in _EVALUATED.items():
        found = [(record["epoch"], record[name]) for record in records if name in record]
        if found:
            below.plot(*zip(*found, strict=True), "o-", color="#D55E00", label=f"{of}, averaged weights")
    below.set_ylabel("top-1, %")
    below.set_xlabel("epoch")
    below.legend()
    size = None
    for axes in (above, below):
        axes.grid(alpha=0.3)
    for record in records:  # where the images become larger the loss jumps
        if record["size"] != size:
            size = record["size"]
            for axes in (above, below):
                axes.axvline(record["epoch"] - 0.5, color="#BBBBBB", linewidth=1)
            place = (record["epoch"] - 0.4, 1.01)
            above.text(*place, f"{size} px", transform=above.get_xaxis_transform(), fontsize=8)
    with atomic_path(run_dir / PICTURE) as path:
        figure.savefig(path, dpi=100, format="png")


def peak_memory_mb() -> int | None:
    """Return the largest memory held so far, on the GPU or else by the process, in MiB; None: unknown.

    A process that trains several runs counts those before, too.
    """
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
