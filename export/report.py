"""Write the generated tables and pictures of the README and docs/: ``python -m export.report``.

No figure in the tables is typed by hand; ``--check`` fails where one and what it is made from disagree. A
table stands between the lines ``<!-- NAME: python -m export.report -->`` and ``<!-- end of NAME -->``.
"""

import argparse
import functools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from torch import nn

from export import results
from export.benchmark import pages
from export.benchmark.goals import goals
from export.benchmark.pages import markdown
from zoo import catalog, cli
from zoo.catalog import Complexity, complexity
from zoo.errors import ZooError
from zoo.layers import FAMILIES, LOWERINGS, STATIC, DynamicConv2d, fold, lowerings_of, set_lowering
from zoo.pretrained import images_seen, read_manifest, trained_on

CHECKOUT = Path(__file__).resolve().parent.parent


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    parser = argparse.ArgumentParser("python -m export.report", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--root", type=Path, default=CHECKOUT, metavar="DIR", help="checkout to update (default: this one)")
    add("--check", action="store_true", help="change nothing; exit with 1 if a table is out of date")
    options = parser.parse_args(argv)
    # All pages are made before the first is written: an error leaves all of them as they were.
    changed = {name: new for name in TABLES if (new := _changed(options.root, name))}
    stale = list(changed)
    if not options.check:
        for name, new in changed.items():
            with cli.atomic_path(options.root / name) as temporary:
                temporary.write_text(new, encoding="utf-8")
    for name, (source, draw) in {**pages.pictures(options.root), **results.pictures(options.root)}.items():
        picture = options.root / name
        if picture.is_file() and source.encode() in picture.read_bytes():
            continue
        stale.append(name)
        if not options.check:
            with cli.atomic_path(picture) as temporary:
                draw(temporary)
    if options.check:
        print(f"out of date: {', '.join(stale)}; run python -m export.report" if stale else "up to date")
    return int(options.check and bool(stale))


def _changed(root: Path, name: str) -> str | None:
    """Return what a file becomes with today's tables, or None if that is what it is."""
    path = root / name
    if not path.is_file():
        raise ZooError(f"there is no {path}; give the folder of a checkout with --root.")
    old = new = path.read_text(encoding="utf-8")
    for title, make in TABLES[name].items():
        new = insert(new, title, make(root), name)
    return None if new == old else new


def insert(text: str, title: str, table: str, name: str) -> str:
    """Put a table between its two marker lines.

    Args:
        text: what to change, the content of a file.
        title: the table's name in the markers.
        table: what to put there.
        name: of the file, for the error.

    Raises:
        ZooError: the markers are missing.
    """
    opening, closing = f"<!-- {title}: python -m export.report -->", f"<!-- end of {title} -->"
    before, begin, rest = text.partition(opening)
    _, end, after = rest.partition(closing)
    if not (begin and end):
        raise ZooError(f"{name} has no lines {opening!r} and {closing!r} to put the table between.")
    return f"{before}{begin}\n{table}\n{end}{after}"


def model_table(_root: Path) -> str:
    """Return the trained and evaluated models, best clean top-1 first."""
    manifest = read_manifest()
    header = ["model", "parameters", "file", "clean top-1", "augmented top-1", "images seen", "trained on"]
    rows = [
        (
            f"`{row.model}`",
            f"{row.params / 1e6:.2f} M",
            f"{manifest[row.model]['bytes'] / 1e6:.1f} MB",
            f"{row.top1:.2f} %",
            f"{row.top1_augmented:.2f} %",
            f"{images_seen(manifest[row.model]):,}",
            trained_on(manifest[row.model], brief=True),
        )
        for row in catalog.sort(catalog.rows(pretrained=True), "top1")
        if row.top1_augmented is not None
    ]
    return markdown(header, "lrrrrrl", rows)


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


def family_table(_root: Path) -> str:
    """Return each family's layer, what of it depends on the image, and its own arguments."""
    rows = []
    for family, layer in FAMILIES.items():
        sizes = ", ".join(f"{name}={value}" for name, value in layer.sizes.items())
        rows.append((f"`{family}`", f"`{layer.__name__}`", layer.sample_factor, f"`{sizes}`"))
    return markdown(["family", "layer", "depends on the image", "its own arguments"], "llll", rows)


def parameter_table(_root: Path) -> str:
    """Return the parameters of every family at ``SHAPES``, and what is left of them once folded."""
    static = _params(nn.Conv2d)
    rows = [(f"`{STATIC}`", *_against(static, static))]
    for family, layer in FAMILIES.items():
        rows.append((f"`{family}`", *_against(_params(layer, "unfold"), static)))
        if "fold" in lowerings_of(layer):
            rows.append((f"`{family}`, folded", *_against(_params(layer, "fold"), static)))
    return markdown(["family", *map(str, SHAPES)], "lrrr", rows)


def multiply_table(_root: Path) -> str:
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
    return markdown(["family", "lowering", *map(str, SHAPES)], "llrrr", rows)


def turning_table(root: Path) -> str:
    """Return how far kernels moved in what docs/gallery.py drew, in percent of their size."""
    rows = []
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
    header = ["model", "layer", "another image", "any angle", "quarter turns", "any angle, disc only"]
    return markdown(header, "llrrrr", rows)


#: The generated tables: file, name in the markers, function of the checkout.
TABLES: dict[str, dict[str, Callable[[Path], str]]] = {
    "README.md": {"models": model_table, "taxes": pages.taxes},
    "docs/families.md": {
        "families": family_table,
        "parameters": parameter_table,
        "multiplies": multiply_table,
        "turning": turning_table,
    },
    "docs/results.md": {
        "aims": results.aims,
        "accuracy": results.accuracy,
        "curves": results.curves,
        "spared": results.spared,
        "seeds": results.seeds,
        "distilled": results.distilled,
        "against the twin": results.against_twin,
        "costs": results.costs,
        "transfer": results.transfer,
    },
    "docs/performance.md": {
        "runtimes": pages.runtimes,
        "goals": goals,
        "sizes": results.sizes,
        "choices": pages.choices,
    },
    "docs/measurements.md": {"results": pages.sections, "parts": pages.parts, "training": pages.training},
}


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


if __name__ == "__main__":
    sys.exit(cli.run(main))
