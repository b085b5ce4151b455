"""What README and docs/performance.md say of the committed results; ``python -m export.report`` writes it.

Results lie in ``benchmarks/``, one file a machine, as ``--json`` writes them. Nothing on the pages is typed.
"""

import hashlib
from pathlib import Path

from export.benchmark import plot, render
from export.benchmark.render import Row
from export.benchmark.results import read
from zoo.cli import atomic_path
from zoo.errors import ZooError

FOLDER = "benchmarks"
_CHECKOUT = Path(__file__).resolve().parents[2]


def results(root: Path) -> dict[str, Path]:
    """Return the committed files by name: those of ``root``, or else of this checkout.

    Raises:
        ZooError: there are none.
    """
    for folder in (root / FOLDER, _CHECKOUT / FOLDER):
        if found := {path.stem: path for path in sorted(folder.glob("*.json"))}:
            return found
    cure = f"python -m export.benchmark --json {FOLDER}/NAME.json makes some"
    raise ZooError(f"there are no results in {root / FOLDER}; {cure}.")


def sections(root: Path) -> str:
    """Return every file's section: its picture, its table, and what the columns mean."""
    found = []
    for name, path in results(root).items():
        run = read(path)
        table = render.rows(run)
        picture = f"![accuracy against latency](images/{_picture(name)})"
        shown = [picture] if plot.panels(table) else []
        legend = "\n".join(f"- {line}" for line in render.legend(run).splitlines())
        found.append("\n\n".join([f"### `{FOLDER}/{name}.json`", *shown, render.to_markdown(table), legend]))
    return "\n\n".join(found)


def taxes(root: Path) -> str:
    """Return one table of all taxes: a row a model, a column for each way to run it."""
    columns: dict[tuple[str, str], dict[str, str]] = {}
    names: dict[str, None] = {}
    for name, path in results(root).items():
        for row in render.rows(read(path)):
            candidate = row.result.candidate
            names[candidate.label] = None
            columns.setdefault((name, candidate.how), {})[candidate.label] = _tax_or_time(row)
    header = ["model", *(how for _, how in columns)]
    lines = [[f"`{label}`", *(column.get(label, "") for column in columns.values())] for label in names]
    rule = f"|---|{'--:|' * len(columns)}"
    return "\n".join([f"| {' | '.join(header)} |", rule, *(f"| {' | '.join(line)} |" for line in lines)])


def update_pictures(root: Path, check: bool) -> list[str]:
    """Draw the pictures that were not made from the results as they are.

    Args:
        root: a checkout.
        check: draw nothing.

    Returns:
        The names of these pictures, relative to ``root``. A picture carries the digest of its results; its
        bytes say nothing, because each version of matplotlib writes others.

    Raises:
        ZooError: a picture must be drawn, and matplotlib is missing.
    """
    stale = []
    for name, path in results(root).items():
        table = render.rows(read(path))
        picture = root / "docs/images" / _picture(name)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        drawn = picture.read_bytes() if picture.is_file() else b""
        if not plot.panels(table) or digest.encode() in drawn:
            continue
        stale.append(picture.relative_to(root).as_posix())
        if not check:
            with atomic_path(picture) as temporary:
                plot.draw(table, temporary, digest)
    return stale


def _picture(name: str) -> str:
    return f"benchmark_{name}.png"


def _tax_or_time(row: Row) -> str:
    """Return the tax; of a static twin, what the others are multiples of."""
    return render.tax_cell(row) if row.tax else f"{row.latency.p50 * 1e3:.1f} ms"
