"""Which lowering is fastest here: every distinct layer, exported alone in each of them and timed.

On the CPU always, as exports and their certificates are made there; on another device another lowering may be
the fastest, which ``python -m export.benchmark --lowerings all --devices cuda`` shows.
"""

import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from export._metadata import versions
from export.base import ExportOptions, Predict, Runtime
from export.parity import prepared
from export.sites import Site, batches, candidates, sites
from zoo.cli import atomic_path
from zoo.machine import cpu_model

_ROUNDS = 9
_TURN = 2e-3

Seconds = dict[str, dict[str, float]]
"""Time of a call by the name of the lowering and the batch size."""


def tune(
    runtime: Runtime,
    model: nn.Module,
    options: ExportOptions,
    cache: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    threads: int | None = None,
) -> dict[str, str]:
    """Measure the lowerings of every dynamic convolution on ``runtime``, on the CPU; return the fastest.

    The candidates are those that work at the batch size asked for; where the batch is dynamic the geometric
    mean over :data:`export.sites.TYPICAL_BATCHES` decides. Alone a layer is not quite what it is in its
    network, where a runtime may keep a layout between layers.

    Args:
        runtime, model, options, cache, say, threads: see :func:`measured`.

    Returns:
        The name of the lowering by the name of the layer, as :func:`zoo.layers.set_lowering` takes it.

    Raises:
        ZooError: the cache cannot be written.
    """
    found = measured(runtime, model, options, cache, say, threads)
    return {site.name: ranked(times)[0] for site, times in found}


def measured(
    runtime: Runtime,
    model: nn.Module,
    options: ExportOptions,
    cache: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    threads: int | None = None,
) -> list[tuple[Site, Seconds]]:
    """Time every lowering of every dynamic convolution; layers that cost the same are measured once.

    Args:
        runtime: the format to measure on, on the CPU.
        model: any module; it is left as it is.
        options: with the input size filled in.
        cache: JSON file to read earlier measurements of the same runtime and machine from, and to leave all
            of them in; None keeps none.
        say: takes a line of progress.
        threads: that an operator may use; None leaves it to the library. What a cache holds for another
            number is not used.
    """
    made_by: dict[str, Any] = {
        **versions(runtime),
        "machine": f"{cpu_model()}, {os.cpu_count()} cores",
        "threads": threads or "the library's own choice",
        "opset": options.opset,
    }
    known = {} if cache is None else _read(cache, made_by)
    found: list[tuple[Site, Seconds]] = []
    for site in sites(model, options):
        key = f"{site.signature}, batch {options.batch or 'dynamic'}"
        if known.get(key, {}).keys() != set(candidates(site.layer, options.batch)):
            known[key] = _measure(runtime, site, options, threads)
            say(f"tuned {key}: {_table(known[key])}")
            if cache is not None:
                _write(cache, {"made_by": made_by, "seconds": known})
        found.append((site, known[key]))
    return found


def mean(times: dict[str, float]) -> float:
    """Return the geometric mean over the batch sizes."""
    return math.exp(statistics.fmean(math.log(max(seconds, 1e-12)) for seconds in times.values()))


def ranked(times: Seconds) -> list[str]:
    """Return the names of the lowerings, the fastest first."""
    return sorted(times, key=lambda name: mean(times[name]))


def _measure(runtime: Runtime, site: Site, options: ExportOptions, threads: int | None) -> Seconds:
    names = candidates(site.layer, options.batch)
    if len(names) == 1:
        return {names[0]: {str(batch): 0.0 for batch in batches(options)}}
    options = replace(options, input_size=site.size)
    before = torch.get_num_threads()
    try:
        with tempfile.TemporaryDirectory() as folder:
            predicts: dict[str, Predict] = {}
            for name in names:
                path = Path(folder) / f"{name}{runtime.suffix}"
                runtime.export(prepared(site.layer, name), path, options)
                predicts[name] = runtime.load(path, threads=threads)
            return _times(predicts, options)
    finally:
        torch.set_num_threads(before)  # where torch runs the artifact, they are those of the whole process


def _times(predicts: dict[str, Predict], options: ExportOptions) -> Seconds:
    """Time the candidates in turns, so that a machine that slows down slows all of them."""
    found: Seconds = {name: {} for name in predicts}
    for batch in batches(options):
        assert options.input_size is not None
        images = np.random.default_rng(0).standard_normal((batch, *options.input_size), dtype=np.float32)
        for predict in predicts.values():
            _call(predict, images)
        calls = {name: max(1, int(_TURN / _call(predict, images))) for name, predict in predicts.items()}
        turns: dict[str, list[float]] = {name: [] for name in predicts}
        for _ in range(_ROUNDS):
            for name, predict in predicts.items():
                turns[name].append(min(_call(predict, images) for _ in range(calls[name])))
        for name, times in turns.items():
            found[name][str(batch)] = statistics.median(times)
    return found


def _call(predict: Predict, images: np.ndarray) -> float:
    start = time.perf_counter()
    predict(images)
    return time.perf_counter() - start


def _table(times: Seconds) -> str:
    return ", ".join(f"{name} {1e3 * mean(times[name]):.3g} ms" for name in ranked(times))


def _write(cache: Path, found: dict[str, Any]) -> None:
    with atomic_path(cache) as path:
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _read(cache: Path, made_by: dict[str, Any]) -> dict[str, Seconds]:
    """Return the measurements in ``cache``, none if they were made by something else."""
    try:
        stored = json.loads(cache.read_text("utf-8"))
        found = stored["seconds"] if stored["made_by"] == made_by else {}
        whole = all(
            isinstance(seconds, float)
            for times in found.values()
            for by in times.values()
            for seconds in by.values()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return found if whole else {}
