"""The pictures of docs/results.md: what trained models make of images that are turned, zoomed or sheared."""

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from export.benchmark import plot
from export.report.results import order
from zoo.catalog import split_name
from zoo.errors import ZooError
from zoo.layers import STATIC
from zoo.training.invariance import STEPS
from zoo.training.invariance import read as read_evaluation

_LABELS = {"rotation": "rotation, degrees", "scale": "zoom factor", "shear": "shear, degrees"}


def curves(root: Path) -> str:
    """Return the pictures of the curves."""
    names = [Path(name).name for name in pictures(root)]
    return "\n\n".join(f"![top-1 against rotation, zoom and shear](images/{name})" for name in names)


def pictures(_root: Path) -> dict[str, tuple[str, Callable[[Path], None]]]:
    """Return a picture for each backbone whose models were followed, as
    :func:`export.report.benchmarks.pictures` does."""
    groups: dict[str, dict[str, Any]] = {}
    for name, found in read_evaluation().items():
        groups.setdefault(split_name(name)[0], {})[name] = found
    drawn: dict[str, tuple[str, Callable[[Path], None]]] = {}
    for backbone, models in groups.items():
        digest = hashlib.sha256(json.dumps(models, sort_keys=True).encode()).hexdigest()
        drawn[f"docs/images/curves_{backbone}.png"] = digest, partial(draw, models, source=digest)
    return drawn


def draw(models: Mapping[str, Any], path: Path, source: str = "") -> None:
    """Draw top-1, and the share of unchanged predictions, against every transformation.

    Args:
        models: :func:`zoo.training.invariance.curves` by the name of the model.
        path: the PNG to write.
        source: what the picture was made from, kept in the file.

    Raises:
        ZooError: matplotlib is missing.
    """
    if reason := plot.obstacle():
        raise ZooError(f"cannot draw curves: {reason}.")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(STEPS), 6.8), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, len(STEPS), sharey="row", sharex="col")
    shown = {"top1": "top-1, %", "unchanged": "prediction as upright, %"}
    handles: dict[str, Any] = {}
    for line, (what, title) in zip(grid, shown.items(), strict=True):
        for axes, (name, steps) in zip(line, STEPS.items(), strict=True):
            for model, found in sorted(models.items(), key=lambda item: order(item[0])):
                colour, marker = plot.look(model)
                (handle,) = axes.plot(
                    steps,
                    [found[what][name][str(step)] for step in steps],
                    color=colour,
                    marker=marker,
                    markersize=4,
                    linewidth=2 if split_name(model)[1] == STATIC else 1.2,
                    linestyle="--" if split_name(model)[1] == STATIC else "-",
                )
                handles.setdefault(split_name(model)[1], handle)
            if name == "rotation":
                axes.set_xticks(range(0, 361, 90))
            axes.grid(alpha=0.3)
            if what == "unchanged":
                axes.set_xlabel(_LABELS[name])
        line[0].set_ylabel(title)
    figure.suptitle(split_name(next(iter(models)))[0])
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=8)
    figure.savefig(path, dpi=110, format="png", metadata={"Source": source})
