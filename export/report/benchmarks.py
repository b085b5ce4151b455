"""What the README and docs say of the results in ``benchmarks/``, as ``--json`` writes them."""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from export.base import FP32, RUNTIMES
from export.benchmark import plot, render
from export.benchmark.environment import machine, on_whole_machine
from export.benchmark.handoff import FAR
from export.benchmark.render import Row
from export.benchmark.results import Result, Run, read
from export.benchmark.text import threads_of
from export.report import markdown
from export.report.files import FOLDER, committed
from zoo.catalog import split_name
from zoo.models import BACKBONES
from zoo.pretrained import read_manifest

BATCHES = (1, 8)
"""The batch sizes of which the README shows the taxes."""


def sections(root: Path) -> str:
    """Return every file's section: its picture, its table, and what the columns mean."""
    parts = []
    for path in committed(root):
        run = read_today(path)
        table = render.rows(run)
        picture = f"![accuracy against latency](images/{_picture(path)})"
        shown = [picture] if plot.panels(headline(path)) else []
        title = f"### `{FOLDER}/{path.name}`"
        env = run.environment
        origin = ", ".join(filter(None, [machine(env), env["gpu"], env["date"][:10]])) + "."
        rest = markdown.folded(f"{len(table)} rows", f"{render.to_markdown(table)}\n\n{_legend(run)}")
        parts.append("\n\n".join([title, origin, *markdown.made_by(run.command), *shown, rest]))
    return "\n\n".join(parts)


def read_today(path: Path) -> Run:
    """Read results, with the accuracy of today's weights: the time a call takes does not depend on them.

    So models timed with random weights have one, too, where there are weights by now.
    """
    run, manifest = read(path), read_manifest()

    def top1(result: Result) -> float | None:
        today = (manifest.get(result.candidate.model, {}).get("figures") or {}).get("top1")
        return result.top1 if today is None or result.candidate.dtype != FP32 else today

    return replace(run, results=tuple(replace(result, top1=top1(result)) for result in run.results))


def _legend(run: Run) -> str:
    return "\n".join(f"- {line}" for line in render.legend(run).splitlines())


_Way = tuple[bool, int, str, int]
"""A column's place among the others, then ``Candidate.where`` and the batch size."""


class _Column(NamedTuple):
    """One way to run a backbone's models, as one file has it: its rows by label."""

    path: Path
    date: str
    cores: str
    rows: dict[str, Row]

    @property
    def rank(self) -> tuple[bool, int, str]:
        return self.cores != FAR, len(self.rows), self.date


def on_whole_machines(root: Path) -> list[Path]:
    """Return the files of runs that had all of their machine's cores, or all files if none had."""
    paths = committed(root)
    return [path for path in paths if on_whole_machine(read(path).environment)] or paths


def taxes(root: Path) -> str:
    """Return the dynamic taxes at a glance: a table for each backbone, a column for each way to deploy it.

    These are export's formats in fp32, not fixed to one batch size, those on a CPU first. A column is of one
    run, so that its rows compare: of the file with the most models, the latest of those. Runs held to a part
    of their machine's cores are left out, and cores that are far from each other where others are known.
    """
    backbones: dict[str, dict[_Way, _Column]] = {}
    for path in on_whole_machines(root):
        date = read(path).environment["date"]
        found: dict[tuple[str, _Way, str], _Column] = {}
        for row in headline(path):
            candidate = row.result.candidate
            deployed = candidate.runtime in RUNTIMES and candidate.dtype == FP32 and not candidate.fixed
            if deployed and candidate.batch in BATCHES:
                order = candidate.device != "cpu", list(RUNTIMES).index(candidate.runtime)
                way = (*order, candidate.where, candidate.batch)
                key = split_name(candidate.model)[0], way, candidate.cores
                column = found.setdefault(key, _Column(path, date, candidate.cores, {}))
                column.rows[candidate.label] = row
        for (backbone, way, _), column in found.items():
            columns = backbones.setdefault(backbone, {})
            columns[way] = max(columns.get(way, column), column, key=lambda each: each.rank)
    return "\n\n".join(_taxes(backbones[name]) for name in BACKBONES if name in backbones)


def _taxes(columns: dict[_Way, _Column]) -> str:
    ways = sorted(columns)
    labels = dict.fromkeys(label for way in ways for label in columns[way].rows)
    lines = [
        [f"`{label}`", *(_tax_or_time(columns[way].rows.get(label), brief=True) for way in ways)]
        for label in labels
    ]
    header = ["model", *(f"{where}, batch {batch}" for *_, where, batch in ways)]
    files: dict[str, set[Path]] = {}
    for (*_, where, _), column in columns.items():
        files.setdefault(where, set()).add(column.path)
    sources: dict[str, dict[str, None]] = {}
    for way in ways:
        *_, where, batch = way
        path, date, cores, rows = columns[way]
        which = where if len(files[where]) == 1 else f"{where} at batch {batch}"
        env, threads = read(path).environment, next(iter(rows.values())).result.candidate.threads
        facts = [machine(env), env["gpu"], threads_of(threads, cores), date[:10], f"`{FOLDER}/{path.name}`"]
        sources.setdefault(", ".join(filter(None, facts)), {})[which] = None
    origin = "; ".join(f"{' and '.join(wheres)}: {source}" for source, wheres in sources.items())
    return "\n\n".join([markdown.table(header, "l" + "r" * len(ways), lines), f"{origin}."])


def headline(path: Path) -> list[Row]:
    """Return the rows of a file that stand for it: those with the most threads, as most users run it."""
    rows = render.rows(read_today(path))
    most = max(row.result.candidate.threads for row in rows)
    return [row for row in rows if row.result.candidate.threads == most]


def runtimes(root: Path) -> str:
    """Return what every runtime takes: a static twin's time, the others' taxes, and the peak of memory."""
    return "\n\n".join(_runtimes(read_today(path)) for path in committed(root, "runtimes"))


def _runtimes(run: Run) -> str:
    columns: dict[str, None] = {}
    lines: dict[tuple[str, int, str], dict[str, str]] = {}
    for row in render.rows(run):
        candidate = row.result.candidate
        columns[candidate.label] = None
        line = lines.setdefault((candidate.where, candidate.batch, candidate.on), {})
        line[candidate.label] = " ".join([_tax_or_time(row), _megabytes(row)]).strip()
    header = ["runtime", "batch", "threads", *(f"`{label}`" for label in columns)]
    cells = [[*map(str, way), *(line.get(label, "") for label in columns)] for way, line in lines.items()]
    table = markdown.table(header, "lrr" + "r" * len(columns), cells)
    return "\n\n".join([*markdown.made_by(run.command), table, _legend(run)])


def pictures(root: Path) -> dict[str, tuple[str, Callable[[Path], None]]]:
    """Return the picture of every result that has one, of its headline: what it is made from, how to draw it.

    By name relative to ``root``; what it is made from as a digest that it carries. Its bytes say nothing,
    because each version of matplotlib writes others.
    """
    found: dict[str, tuple[str, Callable[[Path], None]]] = {}
    for path in committed(root):
        table = headline(path)
        digest = hashlib.sha256(read_today(path).to_json().encode()).hexdigest()
        if plot.panels(table):
            draw = functools.partial(plot.draw, table, source=digest)
            found[f"docs/images/{_picture(path)}"] = digest, draw
    return found


def _picture(path: Path) -> str:
    return f"benchmark_{path.stem}.png"


def _megabytes(row: Row) -> str:
    """Return the peak of memory where it was seen."""
    return "" if row.result.memory_bytes is None else f"({row.result.memory_bytes / 1e6:.0f} MB)"


def _tax_or_time(row: Row | None, brief: bool = False) -> str:
    """Return the tax, ``brief``: without its interval; of a static twin, what the others are multiples of."""
    if row is None:
        return ""
    if row.result.candidate.is_static:
        return f"{row.latency.p50 * 1e3:.1f} ms"
    if brief:
        return f"{row.tax.value:.2f}" if row.tax else ""
    return render.tax_cell(row)
