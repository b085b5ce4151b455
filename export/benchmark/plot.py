"""The picture: accuracy against latency, every dynamic model with its tax and joined to its static twin."""

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.benchmark.plan import Candidate
from export.benchmark.render import Row
from export.benchmark.subjects import family_of
from zoo.errors import ZooError
from zoo.layers import FAMILIES, STATIC
from zoo.layers.attention import ATTENTION

_BLACK = "#000000"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
"""Told apart by people of every kind of colour vision (Okabe and Ito, https://jfly.uni-koeln.de/color)."""
_MARKERS = "ov^DPX*"
_MOST_COLUMNS = 3
_MARGIN = 1.5
"""By how much the axis of latency reaches beyond the first and the last point, as a factor."""
_ABOVE_FIRST, _BELOW_FIRST = (8, -16, 19, -27), (-16, 8, -27, 19)
"""How far above a point its note stands, in points; where that place is taken, the next."""

Panel = tuple[str, list[Row]]


def obstacle(table: Sequence[Row] | None = None) -> str | None:
    """Return None when a picture can be drawn, otherwise the reason why not."""
    if importlib.util.find_spec("matplotlib") is None:
        return "matplotlib is not installed; pip install matplotlib"
    if table is not None and not panels(table):
        return "none of the models has a top-1 here: the manifest knows those of trained weights, in fp32"
    return None


def panels(table: Sequence[Row]) -> list[Panel]:
    """Return the rows with a top-1 under a title for each way to run them.

    Ways without such a row, as in int8, have no panel.
    """
    found: dict[str, list[Row]] = {}
    for row in table:
        if row.result.top1 is not None:
            found.setdefault(row.result.candidate.how, []).append(row)
    return list(found.items())


def draw(table: Sequence[Row], path: Path, source: str = "") -> None:
    """Draw one panel for each runtime, batch size and number of threads.

    Args:
        table: from :func:`export.benchmark.render.rows`.
        path: the PNG to write.
        source: what the picture was made from, kept in the file.

    Raises:
        ZooError: there is nothing to draw, or nothing to draw with.
    """
    if reason := obstacle(table):
        raise ZooError(f"cannot draw accuracy against latency: {reason}.")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = panels(table)
    lines = -(-len(shown) // _MOST_COLUMNS)
    columns = -(-len(shown) // lines)
    figure = Figure(figsize=(4.6 * columns, 3.8 * lines + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = list(figure.subplots(lines, columns, squeeze=False, sharey=True).flat)
    for axes in grid[len(shown) :]:
        axes.set_visible(False)
    handles: dict[str, Any] = {}
    for axes, (title, points) in zip(grid, shown, strict=False):
        _panel(axes, title, points, handles)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4 * columns, fontsize=8)
    figure.savefig(path, dpi=150, format="png", metadata={"Source": source})


def _panel(axes: Any, title: str, points: list[Row], handles: dict[str, Any]) -> None:
    """Draw the points of one panel; ``handles`` collects the legend's entries.

    Dynamic models carry their tax and are joined to their static twin, which carries the backbone's name.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    at = _positions(points)
    lowest, highest = (pick(x for x, _ in at.values()) for pick in (min, max))
    wide = 0.1 * math.log(highest / lowest * _MARGIN**2)
    near = 0.05 * (max(y for _, y in at.values()) - min(y for _, y in at.values()) or 1)
    written: list[tuple[float, float, int]] = []  # where notes stand: their points, and how far from them
    for row in points:
        candidate = row.result.candidate
        x, y = at[candidate]
        if candidate.twin in at and not candidate.is_static:
            twin_x, twin_y = at[candidate.twin]
            axes.plot([twin_x, x], [twin_y, y], color="#BBBBBB", linewidth=1, zorder=1)
        colour, marker = look(candidate.model)
        # Another way to compute it has the same accuracy; it is hollow.
        face = colour if candidate.lowering == "auto" else "white"
        point = axes.scatter(x, y, s=60, marker=marker, facecolor=face, edgecolor=colour, lw=1.5, zorder=2)
        backbone, _, kind = candidate.label.rpartition(f"_{family_of(candidate.model)}")
        handles.setdefault(family_of(candidate.model) + kind, point)
        note = f"{row.tax.value:.2f}x" if row.tax else backbone
        twin_x, twin_y = at.get(candidate.twin, (x, y))
        # Above a point that is right below its twin stands the twin.
        under = 0 < twin_y - y < 2 * near and abs(math.log(x / twin_x)) < wide
        places = _BELOW_FIRST if under or candidate.lowering != "auto" else _ABOVE_FIRST
        away = _free(places, (x, y), written, wide, near)
        written.append((x, y, away))
        axes.annotate(
            note,
            (x, y),
            xytext=(0, away),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            zorder=3,
        )
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("latency of a call, ms: the twin's p50 times the tax")
    axes.set_ylabel("clean top-1, %")
    axes.set_xscale("log")  # equal steps are equal ratios, as taxes are
    axes.set_xlim(lowest / _MARGIN, highest * _MARGIN)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_tick_params(labelleft=True)
    axes.margins(y=0.15)
    axes.grid(alpha=0.3, which="both")


def _free(
    places: Sequence[int],
    point: tuple[float, float],
    written: Sequence[tuple[float, float, int]],
    wide: float,
    near: float,
) -> int:
    """Return the first place that no neighbour's note has: they must not write over each other.

    Args:
        places: how far above its point a note may stand, the best first, which is also the last resort.
        point: where the note belongs.
        written: the other notes' points and places.
        wide, near: how far from each other neighbours are at most, as the logarithm of the ratio of their
            latencies and as a difference of accuracies.
    """
    x, y = point
    beside = (each for each in written if abs(math.log(x / each[0])) < wide and abs(y - each[1]) < near)
    taken = {away for _, _, away in beside}
    return next((place for place in places if place not in taken), places[0])


def _positions(points: list[Row]) -> dict[Candidate, tuple[float, float]]:
    """Return each row's latency in milliseconds and its top-1 in percent.

    A dynamic model stands where its tax puts it, as seen from its twin: its own percentiles keep the noise
    that the tax is free of.
    """
    p50 = {row.result.candidate: row.latency.p50 * 1e3 for row in points}
    found = {}
    for row in points:
        candidate = row.result.candidate
        latency = p50[candidate] if row.tax is None else row.tax.value * p50.get(candidate.twin, math.nan)
        assert row.result.top1 is not None
        found[candidate] = (p50[candidate] if math.isnan(latency) else latency), row.result.top1
    return found


def look(model: str) -> tuple[str, str]:
    """Return the colour and marker of a family or attention module; the static twin is a black square."""
    family = family_of(model)
    if family == STATIC:
        return _BLACK, "s"
    index = [*FAMILIES, *ATTENTION].index(family)
    around = index // len(_COLOURS)  # where the colours begin anew, they meet other markers
    return _COLOURS[index % len(_COLOURS)], _MARKERS[(index + around) % len(_MARKERS)]
