"""How fast the families train: ``python -m zoo.training.speed --models "resnet18_*" --json FILE``.

Every round takes one step of every candidate, each right after one of its static twin, so that a machine that
slows down slows both; the figure is the median over rounds of the ratio within a round.
"""

import argparse
import json
import multiprocessing
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

import zoo
from zoo import catalog, cli
from zoo.catalog import split_name
from zoo.errors import ZooError
from zoo.layers import LOWERINGS, STATIC, dynamic_layers, lowerings_of
from zoo.machine import cpu_model
from zoo.training import log
from zoo.training.loop import set_training_lowering
from zoo.training.optimizer import make_optimizer
from zoo.training.recipe import Recipe

FORMAT = "training speed 1"


@dataclass(frozen=True)
class Candidate:
    """One way to train a model.

    Attributes:
        model: a name of the zoo.
        lowering: as :class:`Recipe` has it.
        batch: images a step.
        side: of the images, in pixels.
        compiled: whether torch.compile made the forward and backward.
    """

    model: str
    lowering: str = "auto"
    batch: int = 32
    side: int = 32
    compiled: bool = False


class Step:
    """A step of training on made-up images: forward, backward and update.

    Args:
        candidate: what to train.
        device: where.
    """

    def __init__(self, candidate: Candidate, device: torch.device):
        torch.manual_seed(0)
        recipe = Recipe(candidate.model, lowering=candidate.lowering)
        model = zoo.create_model(candidate.model).train().to(device)
        set_training_lowering(model, candidate.lowering)
        self.model = model.to(memory_format=torch.channels_last)
        self.optimizer = make_optimizer(recipe, self.model)
        shape = candidate.batch, 3, candidate.side, candidate.side
        self.images = torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last)
        self.labels = torch.randint(10, (candidate.batch,), device=device)
        self.device = device
        self.run: Any = torch.compile(self.model) if candidate.compiled else self.model

    def __call__(self) -> float:
        """Take the step and return the seconds it took."""
        began = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.run(self.images)
        loss = F.cross_entropy(logits.float(), self.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    words = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser("python -m zoo.training.speed", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--models", nargs="+", required=True, metavar="NAME", help="names or patterns")
    add("--lowerings", nargs="+", metavar="NAME", help="default: auto, and all that train")
    add("--batch", type=int, default=32, metavar="N", help="images a step (default: 32)")
    add("--side", type=int, default=32, metavar="PIXELS", help="of the images (default: 32)")
    add("--rounds", type=int, default=5, metavar="N", help="default: 5")
    add("--threads", type=int, default=1, metavar="N", help="CPU threads (default: 1)")
    add("--compile", action="store_true", help="measure torch.compile too, for lowering auto")
    add("--json", type=Path, metavar="FILE", help="write the figures to this file")
    args = parser.parse_args(words)
    for name in ("batch", "side", "rounds", "threads"):
        if getattr(args, name) < 1:
            raise ZooError(f"--{name} is {getattr(args, name)}; it must be at least 1.")
    torch.set_num_threads(args.threads)
    candidates = [
        Candidate(name, lowering, args.batch, args.side)
        for name in catalog.names(args.models)
        if split_name(name)[1] != STATIC
        for lowering in (args.lowerings or trainable(name))
    ]
    if args.compile:
        candidates += [
            Candidate(each.model, "auto", args.batch, args.side, compiled=True)
            for each in candidates
            if each.lowering == "auto"
        ]
    rows = measure(candidates, args.rounds)
    print(table(rows))
    if args.json is not None:
        record = {
            "format": FORMAT,
            "command": shlex.join(["python", "-m", "zoo.training.speed", *words]),
            "environment": {
                "cpu": cpu_model(),
                "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
                "cores": os.cpu_count(),
                "threads": args.threads,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "zoo": zoo.__version__,
            },
            "rows": rows,
        }
        with cli.atomic_path(args.json) as path:
            path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def trainable(name: str) -> list[str]:
    """Return ``auto`` and the lowerings that every dynamic layer of a model has and that train in batches."""
    layers = dynamic_layers(zoo.create_model(name))
    common = [each for each in LOWERINGS if all(each in lowerings_of(layer) for layer in layers)]
    return ["auto", *(each for each in common if LOWERINGS[each].batch != "one" and each != "fold")]


def measure(candidates: Sequence[Candidate], rounds: int) -> list[dict[str, Any]]:
    """Time the candidates and their static twins; the first step of each is not counted.

    Returns:
        For each candidate its fields, ``images_per_second`` (median), ``over_static``, the median ratio of
        its speed to its twin's in the same round, and ``peak_memory_mb`` of a process that takes one step.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows: list[dict[str, Any]] = []
    for candidate in candidates:
        twin_name = f"{split_name(candidate.model)[0]}_{STATIC}"
        step = Step(candidate, device)
        twin = Step(Candidate(twin_name, "auto", candidate.batch, candidate.side), device)
        step(), twin()
        pairs = [(twin(), step()) for _ in range(rounds)]
        row = {
            **asdict(candidate),
            "images_per_second": candidate.batch / statistics.median(own for _, own in pairs),
            "over_static": statistics.median(theirs / own for theirs, own in pairs),
            "peak_memory_mb": peak_memory(candidate),
        }
        rows.append(row)
        print(describe(row), flush=True)
    return rows


def peak_memory(candidate: Candidate) -> int | None:
    """Return the peak memory in MiB of a new process that takes one step."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_memory, candidate).result()


def _peak_memory(candidate: Candidate) -> int | None:
    Step(candidate, torch.device("cuda" if torch.cuda.is_available() else "cpu"))()
    return log.peak_memory_mb()


def describe(row: dict[str, Any]) -> str:
    """Return a row as a line."""
    how = f"{row['lowering']}{', compiled' if row['compiled'] else ''}"
    return (
        f"{row['model']:<28} {how:<18} {row['images_per_second']:>8.1f} images/s  "
        f"{row['over_static']:>5.2f} of static  {row['peak_memory_mb'] or '':>6} MiB"
    )


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the fastest way of each model first."""
    ordered = sorted(rows, key=lambda row: (row["model"], -row["over_static"]))
    return "\n".join(["", *map(describe, ordered)])


if __name__ == "__main__":
    sys.exit(cli.run(main))
