"""What docs/families.md says of each family: its layer, what that costs, and how its kernels move."""

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from torch import nn

from export.report import markdown
from zoo.catalog import Complexity, complexity
from zoo.layers import FAMILIES, LOWERINGS, STATIC, DynamicConv2d, fold, lowerings_of, set_lowering

Layer = TypeVar("Layer", bound=nn.Module)


class Shape(NamedTuple):
    """A 3x3 convolution that the families are compared on: channels in and out, side of the image, groups."""

    channels: int
    side: int
    groups: int

    def __str__(self) -> str:
        channels = f"depthwise {self.channels}" if self.groups > 1 else f"{self.channels} to {self.channels}"
        return f"{channels}, {self.side}x{self.side}"


SHAPES = (Shape(64, 32, groups=1), Shape(256, 8, groups=1), Shape(64, 32, groups=64))


def costs(layer: Any, lowering: str = "auto") -> tuple[Complexity | None, ...]:
    """Count what a layer costs at each of ``SHAPES``, without a bias and, lowered to ``fold``, folded.

    None stands for a shape that the layer lacks the lowering at.
    """
    return _costs(layer, lowering)


@functools.cache
def _costs(layer: Callable[..., nn.Module], lowering: str) -> tuple[Complexity | None, ...]:
    counted: list[Complexity | None] = []
    for shape in SHAPES:
        module = made(layer, shape)
        if isinstance(module, DynamicConv2d) and lowering not in ("auto", *lowerings_of(module)):
            counted.append(None)
        else:
            size = (shape.channels, shape.side, shape.side)
            counted.append(complexity(fold(set_lowering(module, lowering)), size))
    return tuple(counted)


def made(layer: Callable[..., Layer], shape: Shape) -> Layer:
    """Make the 3x3 convolution of a shape, without storage."""
    channels, _, groups = shape
    return layer(channels, channels, 3, padding=1, groups=groups, bias=False, device="meta")


def families(_root: Path) -> str:
    """Return each family's layer, what of it depends on the image, and its own arguments."""
    rows = []
    for family, layer in FAMILIES.items():
        sizes = ", ".join(f"{name}={value}" for name, value in layer.sizes.items())
        rows.append((f"`{family}`", f"`{layer.__name__}`", layer.sample_factor, f"`{sizes}`"))
    return markdown.table(["family", "layer", "depends on the image", "its own arguments"], "llll", rows)


def parameters(_root: Path) -> str:
    """Return the parameters of every family at ``SHAPES``, and what is left of them once folded."""
    static = _params(nn.Conv2d)
    rows = [(f"`{STATIC}`", *_against(static, static))]
    for family, layer in FAMILIES.items():
        rows.append((f"`{family}`", *_against(_params(layer, "unfold"), static)))
        if "fold" in lowerings_of(layer):
            rows.append((f"`{family}`, folded", *_against(_params(layer, "fold"), static)))
    return markdown.table(["family", *map(str, SHAPES)], "lrrr", rows)


def multiplies(_root: Path) -> str:
    """Return every family's multiplies at ``SHAPES``: lowerings of one cost in one row, auto in bold."""
    static = _macs(nn.Conv2d)
    rows = [(f"`{STATIC}`", "", *_against(static, static))]
    for family, layer in FAMILIES.items():
        automatic = [made(layer, shape).lowering for shape in SHAPES]
        able = [set(lowerings_of(made(layer, shape))) for shape in SHAPES]
        alike: dict[tuple[int | None, ...], list[str]] = {}
        for lowering in LOWERINGS:
            if any(lowering in names for names in able):
                alike.setdefault(tuple(_macs(layer, lowering)), []).append(lowering)
        for counts, lowerings in alike.items():
            cells = _against(counts, static)
            marked = [
                f"**{cell}**" if name in lowerings else cell
                for cell, name in zip(cells, automatic, strict=True)
            ]
            rows.append((f"`{family}`", ", ".join(f"`{name}`" for name in lowerings), *marked))
    return markdown.table(["family", "lowering", *map(str, SHAPES)], "llrrr", rows)


def turning(root: Path) -> str:
    """Return how far kernels moved in what docs/gallery.py drew, in percent of their size."""
    rows, further = [], 0
    for path in sorted(root.glob("docs/images/*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        quarters = [index for index, angle in enumerate(record["angles"]) if angle in (90, 180, 270)]
        for name, layer in record["layers"].items():
            moves = (
                layer["other_image"],
                max(layer["median"]),
                max(layer["median"][index] for index in quarters),
                max(layer["disc"]),
            )
            rows.append((f"`{record['model']}`", f"`{name}`", *(f"{100 * move:.2f} %" for move in moves)))
            further += moves[0] > moves[1]
    header = ["model", "layer", "another image", "any angle", "quarter turns", "any angle, disc only"]
    table = markdown.table(header, "llrrrr", rows)
    most = f"{further} of {len(rows)} layers"
    return f"{table}\n\nKernels move further from one image to another than through any angle in {most}."


def _params(layer: Any, lowering: str = "auto") -> list[int | None]:
    return [None if cost is None else cost.params for cost in costs(layer, lowering)]


def _macs(layer: Any, lowering: str = "auto") -> list[int | None]:
    return [None if cost is None else cost.macs for cost in costs(layer, lowering)]


def _against(counts: Sequence[int | None], static: Sequence[int | None]) -> list[str]:
    """Write each count beside its ratio to the static convolution's."""
    return [
        f"{count:,} ({count / one:.2f}x)" if count and one else "-"
        for count, one in zip(counts, static, strict=True)
    ]
