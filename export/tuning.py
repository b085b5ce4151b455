"""Which lowering is fastest here: every distinct layer, exported in each of them and timed.

A runtime may keep a layout of memory from layer to layer, so a layer stands between two small static
convolutions. Even so what is fastest for every layer need not be for the network: that is timed with a few
choices as well, and the fastest one is taken.
On the CPU always, as exports and their certificates are made there; on another device another lowering may be
the fastest, which ``python -m export.benchmark --lowerings all --devices cuda`` shows.
"""

import functools
import hashlib
import json
import math
import os
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from export._metadata import versions
from export.base import ExportOptions, Predict, Runtime
from export.benchmark.measure import calls_per_turn, interleave
from export.parity import prepared
from export.places import Place, batches, candidates, places
from zoo.cli import atomic_path
from zoo.errors import ZooError
from zoo.layers import LOWERINGS, fold
from zoo.machine import cpu_model, usable_cores

_ROUNDS = 9

Seconds = dict[str, dict[str, float]]
"""Time of a call by the name of the lowering and the batch size."""

Choice = dict[str, str]
"""The lowering by the name of the layer."""

_Set = tuple[dict[str, Any], dict[str, Seconds]]
"""What measurements were made by and with, and their times by what was measured."""


def tune(
    runtime: Runtime,
    model: nn.Module,
    options: ExportOptions,
    cache: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    threads: int | None = None,
    others: Mapping[str, Choice] | None = None,
) -> Choice:
    """Measure the lowerings of every dynamic convolution on ``runtime``, on the CPU; return the fastest.

    The candidates are those that work at the batch size asked for; where the batch is dynamic the geometric
    mean over :data:`export.places.TYPICAL_BATCHES` decides. Compared are each layer's fastest, each layer's
    fastest that is right at every batch size, for a fixed batch size ``grouped`` in all layers, as people run
    such networks today, and ``others``, as far as they differ.

    Args:
        runtime, model, options, cache, say, threads: see :func:`measured`.
        others: further choices by what to call them.

    Returns:
        The name of the lowering by the name of the layer, as :func:`zoo.layers.set_lowering` takes it.

    Raises:
        ZooError: the cache cannot be read or written.
    """
    record = _Record(runtime, options, cache, say, threads)
    found = [(place, _of_layer(record, place)) for place in places(model, options, runtime)]
    by_layer = {place.name: ranked(times) for place, times in found}
    choices = {
        "layers' fastest": {name: ways[0] for name, ways in by_layer.items()},
        "layers' fastest at any batch": {
            name: next(way for way in ways if LOWERINGS[way].batch == "any")
            for name, ways in by_layer.items()
        },
        # With a dynamic batch, and where layers are folded, that is the fastest once more.
        "all grouped": {name: "grouped" if "grouped" in ways else ways[0] for name, ways in by_layer.items()},
        **(others or {}),
    }
    choices = {
        name: choice
        for place, (name, choice) in enumerate(choices.items())
        if choice not in list(choices.values())[:place]
    }
    if len(choices) == 1:
        return choices["layers' fastest"]
    asked = [[place.signature, *(choice[place.name] for choice in choices.values())] for place, _ in found]
    # What lies between the layers takes time, too: the printed model has its modules and their settings.
    digest = hashlib.sha256(json.dumps([asked, repr(model), options.input_size]).encode()).hexdigest()
    networks = {
        name: lambda choice=choice: fold(prepared(model, choice, runtime)) for name, choice in choices.items()
    }
    times = record.times(f"the network of these layers ({digest[:8]})", networks, options)
    return choices[ranked(times)[0]]


def measured(
    runtime: Runtime,
    model: nn.Module,
    options: ExportOptions,
    cache: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    threads: int | None = None,
) -> list[tuple[Place, Seconds]]:
    """Time every lowering of every dynamic convolution in its place; those that cost the same are timed once.

    Args:
        runtime: the format to measure on, on the CPU.
        model: any module; it is left as it is.
        options: with the input size filled in.
        cache: JSON file to read earlier measurements of the same runtime and machine from, and to leave all
            of them in, beside those of other machines, threads and versions; None keeps none.
        say: takes a line of progress.
        threads: that an operator may use; None leaves it to the library. What a cache holds for another
            number is not used.

    Raises:
        ZooError: the cache cannot be read or written.
    """
    record = _Record(runtime, options, cache, say, threads)
    return [(place, _of_layer(record, place)) for place in places(model, options, runtime)]


def _of_layer(record: "_Record", place: Place) -> Seconds:
    """Return the time of every lowering of a layer, with the small convolutions around it."""
    options = replace(record.options, input_size=place.outer_size)
    names = candidates(place.layer, options.batch)
    if len(names) == 1:
        return {names[0]: {str(batch): 0.0 for batch in batches(options)}}
    modules = {
        name: lambda name=name: place.in_place(prepared(place.layer, name, record.runtime)) for name in names
    }
    return record.times(place.signature, modules, options)


class _Record:
    """Measurements, those of earlier calls among them.

    Args:
        runtime, options, cache, say, threads: see :func:`measured`.
    """

    def __init__(
        self,
        runtime: Runtime,
        options: ExportOptions,
        cache: Path | None,
        say: Callable[[str], None],
        threads: int | None,
    ):
        self.runtime, self.options, self.cache, self.say, self.threads = (
            runtime,
            options,
            cache,
            say,
            threads,
        )
        self.made_by: dict[str, Any] = {
            "runtime": runtime.name,
            **versions(runtime),
            "machine": f"{cpu_model()}, {usable_cores() or os.cpu_count()} cores",
            "threads": threads or "the library's own choice",
            "opset": options.opset,
            "layout": runtime.layout(options) or "the format's own",
        }
        self.known = {} if cache is None else self._split(_read(cache))[0]

    def times(
        self, what: str, modules: Mapping[str, Callable[[], nn.Module]], options: ExportOptions
    ) -> Seconds:
        """Return the times of candidates, measured unless they are known.

        Args:
            what: is measured; anything of that name takes as long.
            modules: by the name of the candidate, what makes it as it is exported.
            options: to export it with.
        """
        key = f"{what}, batch {options.batch or 'dynamic'}"
        if self.known.get(key, {}).keys() != modules.keys():
            self.known[key] = self._measure(modules, options)
            self.say(f"tuned {key}: {_table(self.known[key])}")
            if self.cache is not None:
                # Others may have written meanwhile; there is no lock, but this takes milliseconds.
                own, others = self._split(_read(self.cache))
                self.known = {**own, **self.known}
                _write(self.cache, [*others, (self.made_by, self.known)])
        return self.known[key]

    def _split(self, sets: Sequence[_Set]) -> tuple[dict[str, Seconds], list[_Set]]:
        """Return the times that were made as this record makes them, and the other sets."""
        own = [seconds for made_by, seconds in sets if made_by == self.made_by]
        return own[0] if own else {}, [each for each in sets if each[0] != self.made_by]

    def _measure(self, modules: Mapping[str, Callable[[], nn.Module]], options: ExportOptions) -> Seconds:
        before = torch.get_num_threads()
        try:
            with tempfile.TemporaryDirectory() as folder:
                predicts: dict[str, Predict] = {}
                for number, (name, make) in enumerate(modules.items()):
                    path = Path(folder) / f"{number}{self.runtime.suffix}"
                    self.runtime.export(make(), path, options)
                    predicts[name] = self.runtime.load(path, threads=self.threads)
                return _times(predicts, options)
        finally:
            torch.set_num_threads(before)  # where torch runs the artifact, they are the whole process's


def mean(times: dict[str, float]) -> float:
    """Return the geometric mean over the batch sizes."""
    return math.exp(statistics.fmean(math.log(max(seconds, 1e-12)) for seconds in times.values()))


def ranked(times: Seconds) -> list[str]:
    """Return the names of the lowerings, the fastest first."""
    return sorted(times, key=lambda name: mean(times[name]))


def _times(predicts: dict[str, Predict], options: ExportOptions) -> Seconds:
    """Time the candidates in turns, so that a machine that slows down slows all of them."""
    found: Seconds = {name: {} for name in predicts}
    for batch in batches(options):
        assert options.input_size is not None
        images = np.random.default_rng(0).standard_normal((batch, *options.input_size), dtype=np.float32)
        calls = [functools.partial(predict, images) for predict in predicts.values()]
        samples = interleave(calls, [calls_per_turn(call) for call in calls], _ROUNDS)
        for name, seen in zip(predicts, samples, strict=True):
            found[name][str(batch)] = statistics.median(map(min, seen.own))
    return found


def _table(times: Seconds) -> str:
    return ", ".join(f"{name} {1e3 * mean(times[name]):.3g} ms" for name in ranked(times))


def _write(cache: Path, sets: Sequence[_Set]) -> None:
    stored = [{"made_by": made_by, "seconds": seconds} for made_by, seconds in sets]
    with atomic_path(cache) as path:
        path.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


def _read(cache: Path) -> list[_Set]:
    """Return the sets of measurements in ``cache``, those left out that cannot be understood."""
    try:
        stored = json.loads(cache.read_text("utf-8"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ZooError(f"cannot read {cache}: {error.strerror}; give another file.") from None
    except ValueError:
        return []  # it was damaged
    sets = [_whole(each) for each in stored] if isinstance(stored, list) else []
    return [each for each in sets if each is not None]


def _whole(stored: Any) -> _Set | None:
    try:
        numbers = [
            seconds
            for by_name in stored["seconds"].values()
            for by_batch in by_name.values()
            for seconds in by_batch.values()
        ]
        found = stored["made_by"], stored["seconds"]
    except (KeyError, TypeError, AttributeError):
        return None
    return found if all(isinstance(each, float) for each in numbers) else None
