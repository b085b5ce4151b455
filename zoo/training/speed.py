"""How fast the families train: ``python -m zoo.training.speed --models "resnet18_*" --json FILE``.

Every round takes one step of the static twin and one of each way to train a model, so that a machine that
slows down slows all of them; the figure is the median over rounds of the ratio within a round. A compiled
model is compared with its compiled twin, and one in NCHW with the twin in NHWC, as static networks are faster
so on CPUs. Images lie in memory as ``python -m zoo.train`` has them; ``--layouts`` measures lowering auto the
other way as well. What is measured is in the file after every model.
"""

import argparse
import datetime
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
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

import zoo
from zoo import catalog, cli
from zoo.catalog import split_name
from zoo.cli import portable
from zoo.errors import ZooError
from zoo.layers import LOWERINGS, STATIC, common_lowerings, dynamic_layers, share_context
from zoo.machine import commit, cpu_model
from zoo.training import log, memory
from zoo.training.augment import Augmentation, warp
from zoo.training.compiling import compiled, explained
from zoo.training.loop import memory_format, precision, searched_convolutions, set_training_lowering
from zoo.training.optimizer import make_optimizer
from zoo.training.recipe import Recipe

_SIDE = 32  # of CIFAR-10

FORMAT = "training speed 1"


@dataclass(frozen=True)
class Candidate:
    """One way to train a model.

    Attributes:
        model: a name of the zoo.
        lowering: as :class:`Recipe` has it.
        batch: images a step.
        side: of the images, in pixels.
        channels_last: whether the network and the images lie in memory as NHWC, else as NCHW; None means what
            :func:`zoo.training.loop.memory_format` takes.
        compiled: whether torch.compile made the forward and backward.
        amp: ``bf16`` autocast or ``no``.
        shared: how many images share their kernels (:func:`zoo.layers.share_context`).
    """

    model: str
    lowering: str = "auto"
    batch: int = 32
    side: int = 32
    channels_last: bool | None = None
    compiled: bool = False
    amp: str = "no"
    shared: int = 1


class Network:
    """A model and its optimizer, for several ways to train it: a copy for each would fill the memory.

    Args:
        model: a name of the zoo.
        channels_last: whether it lies in memory as NHWC, else as NCHW.
        compile: whether torch.compile makes the forward and backward.
        device: where.
    """

    def __init__(self, model: str, channels_last: bool, compile: bool, device: torch.device):
        torch.manual_seed(0)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        made = zoo.create_model(model).train().to(device)
        self.model = made.to(memory_format=self.memory_format)
        self.optimizer = make_optimizer(Recipe(model), self.model)
        self.run: Any = compiled(self.model) if compile else self.model


class Step:
    """A step of training on made-up images: forward, backward and update.

    Args:
        candidate: what to train.
        device: where.
        network: of the candidate's :func:`_kind`; one of its own by default.

    Raises:
        ZooError: when called, where torch.compile cannot compile the model.
    """

    def __init__(self, candidate: Candidate, device: torch.device, network: Network | None = None):
        self.candidate = candidate
        self.network = network or Network(*_kind(_laid_out(candidate)), device)
        self.device = device
        random = torch.Generator().manual_seed(0)
        shape = candidate.batch, 3, candidate.side, candidate.side
        images = torch.randn(shape, generator=random).to(device)
        self.images = images.contiguous(memory_format=self.network.memory_format)
        self.labels = torch.randint(10, (candidate.batch,), generator=random).to(device)

    def __call__(self) -> float:
        """Take the step and return the seconds it took."""
        network = self.network
        set_training_lowering(network.model, self.candidate.lowering)
        share_context(network.model, self.candidate.shared)
        began = time.perf_counter()
        with explained(self.candidate.model):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.candidate.amp == "bf16"):
                logits = network.run(self.images)
            loss = F.cross_entropy(logits.float(), self.labels)
            network.optimizer.zero_grad()
            loss.backward()
        network.optimizer.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began


def loading(batch: int, side: int, rounds: int) -> float:
    """Return how many images a second are drawn, warped and normalised, as before a step of training.

    Args:
        batch: images a step.
        side: of the images that come out, in pixels.
        rounds: how many; the median is returned.
    """
    device = _device()
    images = torch.randint(256, (10 * batch, 3, _SIDE, _SIDE), dtype=torch.uint8, device=device)
    random, taken = torch.Generator().manual_seed(0), []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        rows = torch.randperm(len(images), generator=random)[:batch].to(device)
        maps = Augmentation().draw(batch, _SIDE, random)
        warp(images[rows], maps, side).contiguous(memory_format=torch.channels_last)
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return batch / statistics.median(taken[1:])


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
    add("--layouts", action="store_true", help="measure NHWC and NCHW, for lowering auto")
    add(
        "--shared",
        type=int,
        nargs="+",
        default=[],
        metavar="N",
        help="measure N images that share their kernels too, for lowering auto",
    )
    add("--amp", choices=["bf16", "no"], help="default: bf16 on CUDA and no on a CPU")
    add("--json", type=Path, metavar="FILE", help="write the figures to this file")
    args = parser.parse_args(words)
    cli.check_counts(args, "batch", "side", "rounds", "threads")
    if outside := [each for each in args.shared if not 2 <= each <= args.batch]:
        raise ZooError(f"--shared is {outside[0]}; it must be from 2 to the batch, {args.batch}.")
    cli.check_writable(args.json)
    memory.keep_freed_memory()
    wanted = _wanted(args)
    if not wanted:
        raise ZooError("there is nothing to compare: a static twin is measured beside a dynamic model.")
    torch.set_num_threads(args.threads)
    facts = _environment(args.threads)  # before the first file changes the checkout
    loaded = {
        "batch": args.batch,
        "side": args.side,
        "images_per_second": loading(args.batch, args.side, 10 * args.rounds),
    }
    rows: list[dict[str, Any]] = []
    for ways in wanted:
        rows += measure(ways, args.rounds, args.threads)
        if args.json is not None:
            command = shlex.join(["python", "-m", "zoo.training.speed", *map(portable, words)])
            record = {
                "format": FORMAT,
                "command": command,
                "environment": facts,
                "loading": loaded,
                "rows": rows,
            }
            with cli.atomic_path(args.json) as path:
                path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(table(rows))
    print(f"\nloading alone: {loaded['images_per_second']:.0f} images/s")
    return 0


def _wanted(args: argparse.Namespace) -> list[list[Candidate]]:
    """Return the ways to train each dynamic model, before anything is measured.

    Raises:
        ZooError: a model cannot train with a lowering that was asked for.
    """
    wanted: list[list[Candidate]] = []
    for name in catalog.names(args.models):
        if split_name(name)[1] == STATIC:
            continue
        able = trainable(name)
        if lacking := [each for each in args.lowerings or [] if each not in able]:
            can = ", ".join(able)
            raise ZooError(f"{name} cannot train with the lowering {lacking[0]}; it can with {can}.")
        like = Candidate(name, batch=args.batch, side=args.side, amp=precision(args.amp))
        ways = [replace(like, lowering=each) for each in args.lowerings or able]
        if args.compile:
            ways.append(replace(like, compiled=True))
        if args.layouts:
            ways += [replace(like, channels_last=each) for each in (True, False)]
        ways += [replace(like, shared=each) for each in args.shared]
        wanted.append(ways)
    return wanted


def _environment(threads: int) -> dict[str, Any]:
    """Return what the figures depend on beyond the models."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "versions": {"zoo": zoo.__version__, "torch": torch.__version__},
        "commit": commit(),
    }


def trainable(name: str) -> list[str]:
    """Return ``auto`` and the lowerings that every dynamic layer of a model has and that train in batches."""
    model = zoo.create_model(name)
    same = {"contract"} if all(layer.identity_basis for layer in dynamic_layers(model)) else set()
    left_out = {"fold"} | same
    able = [each for each in common_lowerings(model) if LOWERINGS[each].batch != "one"]
    return ["auto", *(each for each in able if each not in left_out)]


def _laid_out(candidate: Candidate) -> Candidate:
    """Return the candidate with its ``channels_last`` decided, for the device that this process trains on."""
    model = zoo.create_model(candidate.model)
    set_training_lowering(model, candidate.lowering)
    layout = memory_format(candidate.channels_last, model, _device())
    return replace(candidate, channels_last=layout == torch.channels_last)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def measure(candidates: Sequence[Candidate], rounds: int, threads: int = 1) -> list[dict[str, Any]]:
    """Time the ways to train one model, and its static twin; the first step of each is not counted.

    Args:
        candidates: of one model; those that turn out alike are timed once.
        rounds: how many.
        threads: for the processes that measure memory.

    Returns:
        For the twins and for each candidate its fields, ``images_per_second`` (median), ``over_static``, the
        median ratio of its speed to the twin's in the same round, and ``peak_memory_mb`` of a new process
        that takes one step.
    """
    candidates = [_laid_out(each) for each in candidates]
    twins = {each: _twin(each) for each in candidates}
    taken = _timed(list(dict.fromkeys((*twins.values(), *candidates))), rounds)
    if any(each.compiled for each in taken):
        torch._dynamo.reset()  # it keeps a few compilations of a forward, and runs further models without
    rows: list[dict[str, Any]] = []
    for each, own in taken.items():
        ratios = [theirs / mine for theirs, mine in zip(taken[twins.get(each, each)], own, strict=True)]
        row = {
            **asdict(each),
            "images_per_second": each.batch / statistics.median(own),
            "over_static": statistics.median(ratios),
            "peak_memory_mb": peak_memory(each, threads),
        }
        rows.append(row)
        print(describe(row), flush=True)
    return rows


def _timed(candidates: Sequence[Candidate], rounds: int) -> dict[Candidate, list[float]]:
    """Return the seconds of each candidate's step in every round."""
    device = _device()
    networks: dict[tuple[str, bool, bool], Network] = {}
    steps: dict[Candidate, Step] = {}
    for each in candidates:
        kind = _kind(each)
        if kind not in networks:
            networks[kind] = Network(*kind, device)
        steps[each] = Step(each, device, networks[kind])
    taken: dict[Candidate, list[float]] = {each: [] for each in candidates}
    with searched_convolutions():
        for number in range(rounds + 1):
            for each, step in steps.items():
                seconds = step()
                if number:
                    taken[each].append(seconds)
    return taken


def _kind(candidate: Candidate) -> tuple[str, bool, bool]:
    """Return what candidates that can take turns with one network have in common, as it takes it."""
    return candidate.model, candidate.channels_last is not False, candidate.compiled


def _twin(candidate: Candidate) -> Candidate:
    return replace(
        candidate,
        model=f"{split_name(candidate.model)[0]}_{STATIC}",
        lowering="auto",
        channels_last=True,
        shared=1,
    )


def peak_memory(candidate: Candidate, threads: int) -> int | None:
    """Return the peak memory in MiB of a new process that takes one step, torch itself included.

    None where it cannot be seen, as when the process was killed.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_peak_memory, candidate, threads).result()
        except BrokenProcessPool:
            return None


def _peak_memory(candidate: Candidate, threads: int) -> int | None:
    memory.keep_freed_memory()
    torch.set_num_threads(threads)
    Step(candidate, _device())()
    return log.peak_memory_mb()


def way(row: dict[str, Any]) -> str:
    """Return how a row's model is trained, such as ``auto, NHWC, compiled, bf16``."""
    extra = {
        "NHWC": row.get("channels_last", True),
        "NCHW": not row.get("channels_last", True),
        "compiled": row["compiled"],
        "bf16": row.get("amp") == "bf16",
        f"shared by {row.get('shared')}": row.get("shared", 1) > 1,
    }
    return ", ".join([row["lowering"], *(word for word, holds in extra.items() if holds)])


def describe(row: dict[str, Any]) -> str:
    """Return a row as a line."""
    return (
        f"{row['model']:<28} {way(row):<28} {row['images_per_second']:>8.1f} images/s  "
        f"{row['over_static']:>5.2f} of static  {row['peak_memory_mb'] or '':>6} MiB"
    )


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the fastest way of each model first."""
    ordered = sorted(rows, key=lambda row: (row["model"], -row["over_static"]))
    return "\n".join(["", *map(describe, ordered)])


if __name__ == "__main__":
    sys.exit(cli.run(main))
