"""Fit what a unit of work costs: ``python -m export.rates --models "*18_kw" "*18_dpk" --cache times.json``.

Measures every lowering of every distinct layer (:mod:`export.tuning`) on one thread and fits the seconds of
:data:`export.cost.WORK` to them, so that ``--lowering auto`` can compare prices. Prints what the choice costs
against the fastest lowering of each layer.
"""

import argparse
import importlib.util
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export import cost
from export._inputs import input_size
from export._metadata import versions
from export.base import RUNTIMES, ExportOptions, runtime
from export.places import Place
from export.tuning import Seconds, mean, measured, ranked
from zoo import cli
from zoo.catalog import names
from zoo.cli import portable
from zoo.errors import ZooError
from zoo.machine import cpu_model
from zoo.models import create_model

_THREADS = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    words = sys.argv[1:] if argv is None else list(argv)
    args = _arguments(words)
    chosen = runtime(args.runtime)
    layers: dict[tuple[str, int | None], list[tuple[Place, Seconds]]] = {}
    for name, batch in (*product(args.models, (None, *args.batch)), *product(args.held_out, (None,))):
        torch.manual_seed(0)
        model = create_model(name)
        options = ExportOptions(batch=batch)
        options = replace(options, input_size=input_size(model, options))
        layers[name, batch] = measured(chosen, model, options, args.cache, print, _THREADS)
    distinct = {
        (place.signature, batch): (place, times)
        for (name, batch), found in layers.items()
        if name in args.models
        for place, times in found
    }
    # Convolutions that are folded once have nothing to choose.
    if not any(len(times) > 1 for _, times in distinct.values()):
        raise ZooError("the models have no layers with a lowering to choose, so there is nothing to fit.")
    seconds = fit(list(distinct.values()))
    seen = {place.signature for place, _ in distinct.values()}
    losses: dict[str, tuple[float, float]] = {}
    for name in (*args.models, *args.held_out):
        if not layers[name, None]:
            continue  # a static model, which a pattern may match
        # A layer like one that was fitted to is not held out, whatever model it stands in.
        found = [each for each in layers[name, None] if name in args.models or each[0].signature not in seen]
        if not found:
            raise ZooError(f"all layers of {name} are like fitted ones; hold out another model.")
        losses[name] = loss(found, seconds)
    for kind, unit in cost.WORK.items():
        print(f"{seconds[kind]:.3g} s  {unit}")
    for name, (by_price, by_rule) in losses.items():
        print(f"{name}: time over that of the fastest {by_price:.2f}, by each layer's own rule {by_rule:.2f}")
    if args.write:
        entry = {
            "seconds": seconds,
            "command": shlex.join(["python", "-m", "export.rates", *map(portable, words)]),
            "machine": {"cpu": cpu_model(), "threads": _THREADS},
            "versions": versions(chosen),
            "over_the_fastest": {
                name: {"auto": a, "rule": b, "held_out": name in args.held_out}
                for name, (a, b) in losses.items()
            },
        }
        store(args.runtime, entry)
    return 0


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    """Return the options, with the names of the models for their patterns.

    Raises:
        ZooError: scipy is missing, a batch size is below 1, or a model is both fitted to and held out.
    """
    parser = argparse.ArgumentParser("python -m export.rates", description=__doc__.split("\n\n")[0])
    parser.add_argument("--runtime", default="onnx", choices=RUNTIMES, help="default: onnx")
    parser.add_argument("--models", nargs="+", required=True, metavar="NAME", help="names or patterns")
    parser.add_argument(
        "--held-out", nargs="+", default=[], metavar="NAME", help="models to check on, but not to fit to"
    )
    parser.add_argument("--cache", type=Path, required=True, help="JSON file that keeps the measurements")
    parser.add_argument(
        "--batch",
        nargs="+",
        type=int,
        default=[],
        help="batch sizes to measure files of that size alone at, too",
    )
    parser.add_argument("--write", action="store_true", help=f"store the rates in {cost.RATES.name}")
    args = parser.parse_args(words)
    if importlib.util.find_spec("scipy") is None:
        raise ZooError("fitting needs the package scipy; pip install '.[benchmark]'.")
    if wrong := [batch for batch in args.batch if batch < 1]:
        raise ZooError(f"{wrong[0]} is not a batch size; give whole numbers from 1.")
    args.models, args.held_out = names(args.models), names(args.held_out) if args.held_out else []
    if both := [name for name in args.held_out if name in args.models]:
        raise ZooError(f"{both[0]} is both fitted to and held out; give it once.")
    return args


def fit(layers: Sequence[tuple[Place, Seconds]]) -> dict[str, float]:
    """Return the seconds of a unit of each kind of work that explain the measurements best, none below 0.

    Least squares of the relative error. What a large layer costs is measured well, and so is the order of the
    lowerings of a small one; both count the same.

    Args:
        layers: with the seconds by lowering and batch size, those of the convolutions around them included.
    """
    from scipy.optimize import nnls

    rows: list[list[float]] = []
    for place, times in layers:
        placed = place.in_place(place.layer)
        for name, by_batch in times.items():
            for batch, seconds in by_batch.items():
                if seconds > 0:
                    work = cost.count(placed, name, (int(batch), *place.outer_size))
                    rows.append([work.get(kind, 0) / seconds for kind in cost.WORK])
    matrix = np.array(rows)
    scale = matrix.max(axis=0, initial=1e-30)
    found, _ = nnls(matrix / scale, np.ones(len(rows)))
    return {kind: float(value) for kind, value in zip(cost.WORK, found / scale, strict=True)}


def loss(found: Sequence[tuple[Place, Seconds]], seconds: cost.Work) -> tuple[float, float]:
    """Return the time of all layers over that of their fastest lowerings: by price, and by their own rule.

    Args:
        found: layers with the seconds by lowering and batch size, those of the convolutions around them
            included.
        seconds: of a unit of each kind of work.
    """
    options = ExportOptions()
    best = sum(mean(times[ranked(times)[0]]) for _, times in found)
    by_price = sum(mean(times[cost.cheapest(place, options, seconds)]) for place, times in found)
    by_rule = sum(mean(times[place.layer.auto_lowering()]) for place, times in found)
    return (by_price / best, by_rule / best) if best > 0 else (1.0, 1.0)


def store(name: str, entry: dict[str, Any]) -> None:
    """Put the rates of a runtime into the file that exports read.

    Args:
        name: of the runtime.
        entry: its rates, and what they were measured with.
    """
    known = json.loads(cost.RATES.read_text("utf-8")) if cost.RATES.exists() else {}
    with cli.atomic_path(cost.RATES) as path:
        path.write_text(json.dumps({**known, name: entry}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(cli.run(main))
