"""Which lowering is fastest here: every distinct layer, exported alone in each of them and timed."""

import json
import math
import platform
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
from zoo.cli import atomic_path
from zoo.layers import LOWERINGS, DynamicConv2d, lowerings_of

#: Batch sizes that an artifact with a dynamic batch is tuned for; each counts the same.
TUNED_BATCHES = (1, 8)
_ROUNDS = 9
_TURN = 2e-3

Seconds = dict[str, float]
"""Time of a call by the name of the lowering: the geometric mean over the batch sizes."""


def tune(
    runtime: Runtime,
    model: nn.Module,
    options: ExportOptions,
    cache: Path,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, str]:
    """Measure the lowerings of every dynamic convolution on ``runtime``, and return the fastest.

    Layers of the same kind, sizes and input are measured once. The candidates are those that work at the
    batch size asked for; where the batch is dynamic they are timed at :data:`TUNED_BATCHES`. Alone a
    layer is not quite what it is in its network, where a runtime may keep a layout between layers.

    Args:
        runtime: the format to measure on, on the CPU.
        model: any module; it is left as it is.
        options: with the input size filled in.
        cache: JSON file to read earlier measurements of the same runtime and machine from, and to leave all
            of them in.
        say: takes a line of progress.

    Returns:
        The name of the lowering by the name of the layer, as :func:`zoo.layers.set_lowering` takes it.

    Raises:
        ZooError: the cache cannot be written.
    """
    copied = prepared(model, "auto")
    sizes = _input_sizes(copied, options)
    made_by: dict[str, Any] = {
        **versions(runtime),
        "machine": f"{platform.node()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "batch": options.batch or list(TUNED_BATCHES),
        "opset": options.opset,
    }
    known = _read(cache, made_by)
    chosen: dict[str, str] = {}
    for name, layer in copied.named_modules():
        if not isinstance(layer, DynamicConv2d) or name not in sizes:
            continue
        key = _signature(layer, sizes[name])
        if known.get(key, {}).keys() != set(candidates(layer, options.batch)):
            known[key] = _measure(runtime, layer, replace(options, input_size=sizes[name]))
            say(f"tuned {key}: {_table(known[key])}")
            with atomic_path(cache) as path:
                path.write_text(json.dumps({"made_by": made_by, "seconds": known}, indent=1) + "\n", "utf-8")
        chosen[name] = _ranked(known[key])[0]
    return chosen


def candidates(layer: DynamicConv2d, batch: int | None) -> list[str]:
    """Return the lowerings of ``layer`` that are right at ``batch``, which may be dynamic (None)."""
    able = {"any"} | ({"frozen"} if batch else set()) | ({"one"} if batch == 1 else set())
    names = [name for name in lowerings_of(layer) if LOWERINGS[name].batch in able]
    # A folded layer is a plain convolution: there is nothing to compare it with.
    return ["fold"] if "fold" in names else names


def _measure(runtime: Runtime, layer: DynamicConv2d, options: ExportOptions) -> Seconds:
    names = candidates(layer, options.batch)
    if len(names) == 1:
        return {names[0]: 0.0}
    with tempfile.TemporaryDirectory() as folder:
        predicts: dict[str, Predict] = {}
        for name in names:
            path = Path(folder) / f"{name}{runtime.suffix}"
            runtime.export(prepared(layer, name), path, options)
            predicts[name] = runtime.load(path)
        return _times(predicts, options)


def _times(predicts: dict[str, Predict], options: ExportOptions) -> Seconds:
    """Time the candidates in turns, so that a machine that slows down slows all of them."""
    logs = dict.fromkeys(predicts, 0.0)
    batches = (options.batch,) if options.batch else TUNED_BATCHES
    for batch in batches:
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
            logs[name] += math.log(statistics.median(times)) / len(batches)
    return {name: math.exp(log) for name, log in logs.items()}


def _call(predict: Predict, images: np.ndarray) -> float:
    start = time.perf_counter()
    predict(images)
    return time.perf_counter() - start


@torch.inference_mode()
def _input_sizes(model: nn.Module, options: ExportOptions) -> dict[str, tuple[int, int, int]]:
    """Return (channels, height, width) of what every dynamic convolution that runs is given."""
    sizes: dict[str, tuple[int, int, int]] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            channels, height, width = inputs[0].shape[1:]
            sizes[name] = (channels, height, width)

        return hook

    hooks = [
        module.register_forward_pre_hook(note(name))
        for name, module in model.named_modules()
        if isinstance(module, DynamicConv2d)
    ]
    model(replace(options, batch=1).example())
    for hook in hooks:
        hook.remove()
    return sizes


def _signature(layer: DynamicConv2d, size: tuple[int, int, int]) -> str:
    """Return what two layers share that cost the same."""
    own = {name: getattr(layer, name) for name in layer.sizes}
    facts: dict[str, Any] = {
        "kernel": layer.kernel_size,
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "groups": layer.groups,
        **own,
    }
    text = ", ".join(f"{name} {value}" for name, value in facts.items())
    height, width = size[1:]
    return f"{type(layer).__name__} {layer.in_channels} to {layer.out_channels} at {height} x {width}, {text}"


def _table(times: Seconds) -> str:
    return ", ".join(f"{name} {1e3 * times[name]:.3g} ms" for name in _ranked(times))


def _ranked(times: Seconds) -> list[str]:
    return sorted(times, key=lambda name: times[name])


def _read(cache: Path, made_by: dict[str, Any]) -> dict[str, Seconds]:
    """Return the measurements in ``cache``, none if they were made by something else."""
    try:
        stored = json.loads(cache.read_text("utf-8"))
        return stored["seconds"] if stored["made_by"] == made_by else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
