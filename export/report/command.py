"""Write the generated tables and pictures of the README and docs/: ``python -m export.report``.

No figure in the tables is typed by hand; ``--check`` fails where one and what it is made from disagree. A
table stands between the lines ``<!-- NAME: python -m export.report -->`` and ``<!-- end of NAME -->``.
"""

import argparse
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from export.report import benchmarks, comparisons, curves, families, records, results
from export.report.files import CHECKOUT
from export.report.goals import goals
from zoo import cli
from zoo.errors import ZooError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    parser = argparse.ArgumentParser("python -m export.report", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--root",
        type=Path,
        default=CHECKOUT,
        metavar="DIR",
        help="checkout to update (default: this one); figures of weights are those of ZOO_WEIGHTS, or of "
        "this installation",
    )
    add("--check", action="store_true", help="change nothing; exit with 1 if a table is out of date")
    options = parser.parse_args(argv)
    # All pages are made before the first is written: an error leaves all of them as they were.
    changed = {name: new for name in TABLES if (new := _changed(options.root, name))}
    stale = list(changed)
    if not options.check:
        for name, new in changed.items():
            with cli.atomic_path(options.root / name) as temporary:
                temporary.write_text(new, encoding="utf-8")
    for name, (source, draw) in {
        **benchmarks.pictures(options.root),
        **curves.pictures(options.root),
    }.items():
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


#: The generated tables: file, name in the markers, function of the checkout.
TABLES: dict[str, dict[str, Callable[[Path], str]]] = {
    "README.md": {"models": results.models, "taxes": benchmarks.taxes},
    "docs/families.md": {
        "families": families.families,
        "parameters": families.parameters,
        "multiplies": families.multiplies,
        "turning": families.turning,
    },
    "docs/results.md": {
        "aims": results.aims,
        "accuracy": results.accuracy,
        "curves": curves.curves,
        "spared": comparisons.spared,
        "seeds": comparisons.seeds,
        "trained on": functools.partial(comparisons.seeds, name="trained_on"),
        "swapped": comparisons.swapped,
        "swapped trained on": functools.partial(comparisons.swapped, name="swapped_trained_on"),
        "distilled": comparisons.distilled,
        "against the twin": results.against_twin,
        "costs": results.costs,
        "transfer": comparisons.transfer,
    },
    "docs/performance.md": {
        "runtimes": benchmarks.runtimes,
        "goals": goals,
        "sizes": comparisons.sizes,
        "choices": records.choices,
        "artifacts": records.artifacts,
    },
    "docs/measurements.md": {
        "results": benchmarks.sections,
        "parts": records.parts,
        "training": records.training,
    },
}
