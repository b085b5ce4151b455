"""The figure of docs/gallery.py: an image turning, the kernels it makes, and how far they move."""

import math
import textwrap
from collections.abc import Collection
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

# Okabe and Ito's colours, which people with colour blindness can tell apart.
BLUE, ORANGE, BLACK = "#0072B2", "#D55E00", "#000000"
EXPERTS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#F0E442")
COLUMNS = 4
_LETTERS = 110  # that a line of the title has room for


def draw(record: dict[str, Any], pictures: Tensor) -> Figure:
    """Draw one model.

    Args:
        record: what docs/gallery.py writes as JSON; every number in the figure comes from it.
        pictures: (A, 3, H, H) in [-1, 1], the image at each angle of ``record["shown"]["angles"]``.
    """
    layers = record["layers"]
    routed = {name: layer["routing"] for name, layer in layers.items() if "routing" in layer}
    heights = [4.5, *(0.6 + 1.8 * math.ceil(len(panels) / COLUMNS) for panels in (layers, routed) if panels)]
    figure = Figure(figsize=(9, 0.6 + sum(heights)), layout="constrained")
    figure.suptitle(_title(record), fontsize=9)
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    _kernels(parts[0], record, pictures)
    _moves(parts[1], record)
    if routed:
        _routing(parts[2], record["angles"], routed)
    return figure


def _title(record: dict[str, Any]) -> str:
    weights, image, data = record["weights"], record["image"], record["data"]
    name = record["model"].replace("_", r"\_")
    top1 = "not evaluated" if weights["top1"] is None else f"clean top-1 {weights['top1']:.2f} %"
    note = f" ({data['note']})" if data["note"] else ""
    made = (
        f"weights {weights['sha256'][:8]}: {weights['epochs_seen']:.1f} epochs' worth of images on "
        f"{weights['device']}, {top1}"
    )
    seen = f"image {image['index']} ({image['label']}) of {data['source']}{note}"
    lines = [line for text in (made, seen) for line in textwrap.wrap(text, _LETTERS)]
    return "\n".join([rf"$\bf{{{name}}}$: its kernels while an image turns", *lines])


def _kernels(part: SubFigure, record: dict[str, Any], pictures: Tensor) -> None:
    """Draw the turning image, some kernels below it, and below those what the turn added to them."""
    shown = record["shown"]
    kernels = [np.array(kernel["values"]) for kernel in shown["kernels"]]
    added = [kernel - kernel[0] for kernel in kernels]
    grid = part.subplots(1 + 2 * len(kernels), len(pictures), gridspec_kw={"hspace": 0, "wspace": 0})
    for column, (angle, picture) in enumerate(zip(shown["angles"], pictures, strict=True)):
        grid[0, column].imshow(
            picture.permute(1, 2, 0).add(1).div(2).clamp(0, 1).numpy(), interpolation="nearest"
        )
        grid[0, column].set_title(f"{angle}°", fontsize=8)
    for first, block, label in (
        (1, kernels, f"kernels of {shown['layer']}"),
        (1 + len(kernels), added, "kernel minus that at 0°"),
    ):
        limit = max(float(np.abs(kernel).max()) for kernel in block) or 1.0
        scale = Normalize(-limit, limit)
        for row, kernel in enumerate(block):
            for column, values in enumerate(kernel):
                drawn = grid[first + row, column].imshow(values, cmap="RdBu_r", norm=scale)
            name = shown["kernels"][row]
            grid[first + row, 0].set_ylabel(
                f"{name['rank']}\nout {name['output']}, in {name['channel']}",
                fontsize=7, rotation=0, ha="right", va="center",
            )  # fmt: skip
        bar = part.colorbar(drawn, ax=grid[first : first + len(block), :], pad=0.01, aspect=12)
        bar.set_label(label, fontsize=8)
        bar.ax.tick_params(labelsize=7)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])


def _moves(part: SubFigure, record: dict[str, Any]) -> None:
    """Draw one panel a layer: how far its kernels move at every angle."""
    turned, compared = record["images_turned"], record["images_compared"]
    layers, angles = record["layers"], record["angles"]
    for axes, layer in zip(_panels(part, layers), layers.values(), strict=True):
        axes.fill_between(angles, layer["low"], layer["high"], color=BLUE, alpha=0.2, linewidth=0)
        axes.plot(angles, layer["median"], color=BLUE, label=f"turned: median, quartiles of {turned} images")
        axes.plot(angles, layer["disc"], color=ORANGE, label="turned, without corners (disc only): median")
        axes.axhline(
            layer["other_image"], color=BLACK, linestyle="--", label=f"another image: median of {compared}"
        )
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    part.supylabel("change of the kernels\n(own scale each)", fontsize=8)
    handles, labels = part.axes[0].get_legend_handles_labels()
    part.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=7.5, frameon=False)


def _routing(part: SubFigure, angles: list[int], routed: dict[str, list[list[float]]]) -> None:
    """Draw one panel a layer: the weight of every expert at every angle, for the image on top."""
    for axes, weights_at in zip(_panels(part, routed), routed.values(), strict=True):
        for expert, weights in enumerate(zip(*weights_at, strict=True)):
            axes.plot(angles, weights, color=EXPERTS[expert % len(EXPERTS)], label=f"expert {expert}")
        axes.set_ylim(0, 1)
    part.supylabel("routing weight", fontsize=8)
    handles, labels = part.axes[0].get_legend_handles_labels()
    part.legend(handles, labels, loc="outside upper center", ncols=8, fontsize=7.5, frameon=False)


def _panels(part: SubFigure, names: Collection[str]) -> list[Axes]:
    """Return a panel against the angle for each name, in even rows of at most ``COLUMNS``."""
    count = len(names)
    rows = math.ceil(count / COLUMNS)
    panels = list(part.subplots(rows, math.ceil(count / rows), squeeze=False).flat)
    for axes, name in zip(panels, names, strict=False):
        axes.set_title(name, fontsize=8)
        axes.set_xticks(range(0, 361, 90))
        axes.set_xlim(0, 360)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    for axes in panels[count:]:
        axes.remove()
    part.supxlabel("angle, degrees clockwise", fontsize=8)
    return panels[:count]
