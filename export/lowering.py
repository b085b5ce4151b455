"""Which lowering each dynamic convolution of an artifact gets."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from export import cost
from export.base import AUTO, TUNE, ExportOptions, Runtime
from export.places import places
from export.tuning import tune


def chosen(
    runtime: Runtime,
    model: nn.Module,
    options: ExportOptions,
    cache: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    threads: int | None = None,
) -> str | dict[str, str]:
    """Return the lowering of a model's layers, as :func:`zoo.layers.set_lowering` takes it.

    ``tune`` measures, ``auto`` compares prices and, on a runtime that none are known of, leaves the layers to
    themselves; any other name is taken as it is.

    Args:
        runtime: the format to choose for.
        model: any module; it is left as it is.
        options: with the input size filled in.
        cache: where ``tune`` keeps its measurements; None keeps none.
        say: takes a line of progress.
        threads: that an operator may use while ``tune`` measures; None leaves it to the library.
    """
    seconds = cost.rates(runtime.name)
    if options.lowering == TUNE:
        usual = _priced(runtime, model, options, seconds) if seconds else _by_rule(runtime, model, options)
        return tune(runtime, model, options, cache, say, threads, {AUTO: usual})
    if options.lowering != AUTO or seconds is None:
        return options.lowering
    return _priced(runtime, model, options, seconds)


def _by_rule(runtime: Runtime, model: nn.Module, options: ExportOptions) -> dict[str, str]:
    """Return the lowering that every layer has where nobody knows prices."""
    return {place.name: place.layer.auto_lowering() for place in places(model, options, runtime)}


def _priced(runtime: Runtime, model: nn.Module, options: ExportOptions, seconds: cost.Work) -> dict[str, str]:
    """Return the lowering of every layer with the lowest price."""
    known: dict[str, str] = {}
    names: dict[str, str] = {}
    for place in places(model, options, runtime):
        key = place.signature
        known[key] = known.get(key) or cost.cheapest(place, options, seconds)
        names[place.name] = known[key]
    return names
