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
_LEAST_HEIGHT = 2.0
"""Points of top-1 that the axis of accuracy shows at least: tenths are within the noise of the images."""
_WIDTH, _HEIGHT = 280.0, 220.0
"""About how large a panel is, in points."""
_LETTER, _LINE, _MARK = 4.6, 8.0, 9.0
"""The width of a letter, the height of a line and the side of a marker, in points."""
Place = tuple[int, int, str]
"""How far right of and above a point its note stands, in points, and which of its ends is there."""

_ABOVE, _BELOW = (0, 8, "center"), (0, -16, "center")
_ELSEWHERE = ((9, -3, "left"), (-9, -3, "right"), (0, 19, "center"), (0, -27, "center"))

Panel = tuple[str, list[Row]]

Box = tuple[float, float, float, float]
"""Left, bottom, right and top, in points."""


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
    bottom, top = _heights([row for _, points in shown for row in points])
    for axes, (title, points) in zip(grid, shown, strict=False):
        _panel(axes, title, points, handles, top - bottom)
    grid[0].set_ylim(bottom, top)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4 * columns, fontsize=8)
    figure.savefig(path, dpi=150, format="png", metadata={"Source": source})


def _panel(axes: Any, title: str, points: list[Row], handles: dict[str, Any], height: float) -> None:
    """Draw the points of one panel of so many points of top-1; ``handles`` collects the legend's entries.

    Dynamic models carry their tax and are joined to their static twin, which carries the backbone's name.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    at = _positions(points)
    lowest, highest = (pick(x for x, _ in at.values()) for pick in (min, max))
    wide = math.log(highest / lowest * _MARGIN**2)

    def spot(x: float, y: float) -> tuple[float, float]:
        return math.log(x / lowest) / wide * _WIDTH, y / height * _HEIGHT

    taken = [_mark_box(*spot(x, y)) for x, y in at.values()]
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
        first = (_ABOVE, _BELOW) if candidate.lowering == "auto" else (_BELOW, _ABOVE)
        boxes = {place: _note_box(*spot(x, y), len(note), place) for place in (*first, *_ELSEWHERE)}
        place = min(boxes, key=lambda each: sum(_meet(boxes[each], other) for other in taken))
        taken.append(boxes[place])
        right, above, align = place
        axes.annotate(
            note,
            (x, y),
            xytext=(right, above),
            textcoords="offset points",
            ha=align,
            fontsize=8,
            zorder=1.5,  # before the lines, behind the points
            bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5},
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
    axes.grid(alpha=0.3, which="both")


def _mark_box(x: float, y: float) -> Box:
    return x - _MARK / 2, y - _MARK / 2, x + _MARK / 2, y + _MARK / 2


def _note_box(x: float, y: float, letters: int, place: Place) -> Box:
    """Return what a note of so many letters covers in a place beside a point."""
    width = _LETTER * letters
    right, above, align = place
    left = x + right - width * {"left": 0.0, "center": 0.5, "right": 1.0}[align]
    return left, y + above, left + width, y + above + _LINE


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _heights(rows: Sequence[Row]) -> tuple[float, float]:
    """Return the ends of the axis of accuracy, in percent."""
    shown = [row.result.top1 for row in rows if row.result.top1 is not None]
    least, most = min(shown), max(shown)
    half = max(0.65 * (most - least), _LEAST_HEIGHT / 2)
    middle = (least + most) / 2
    return middle - half, middle + half


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
