"""What the README and docs say of the committed results; ``python -m export.report`` writes it.

Results lie in ``benchmarks/`` as ``--json`` writes them. Nothing in the tables is typed.
"""

import functools
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from export import cost
from export.base import AUTO, FP32, RUNTIMES
from export.benchmark import plot, profile, render
from export.benchmark.attribution import CONTEXT, CONVOLUTION, FACTORS, LAYOUT, STATIC_CONVOLUTION
from export.benchmark.environment import machine, on_whole_machine
from export.benchmark.handoff import FAR
from export.benchmark.render import Row
from export.benchmark.results import Result, Run, read
from export.benchmark.subjects import twin_of
from export.benchmark.text import threads_of
from export.cost import MULTIPLIES
from zoo.catalog import split_name
from zoo.errors import ZooError
from zoo.layers import STATIC
from zoo.models import BACKBONES
from zoo.pretrained import read_manifest
from zoo.training import speed

FOLDER = "benchmarks"
BATCHES = (1, 8)
"""The batch sizes of which the README shows the taxes."""

_FACTS = {"date", "cpu", "gpu", "versions", "commit"}
_SHOWN = (CONTEXT, FACTORS, CONVOLUTION, LAYOUT, STATIC_CONVOLUTION)
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
        run = read_today(path)
        table = render.rows(run)
        picture = f"![accuracy against latency](images/{_picture(name)})"
        shown = [picture] if plot.panels(headline(path)) else []
        title = f"### `{FOLDER}/{name}.json`"
        env = run.environment
        origin = ", ".join(filter(None, [machine(env), env["gpu"], env["date"][:10]])) + "."
        rest = _folded(f"{len(table)} rows", f"{render.to_markdown(table)}\n\n{_legend(run)}")
        found.append("\n\n".join([title, origin, *_made_by(run.command), *shown, rest]))
    return "\n\n".join(found)


def _made_by(command: str) -> list[str]:
    """Return the command that made a file, as Markdown; nothing where the file does not say."""
    return [f"```sh\n{command}\n```"] if command else []


def _folded(title: str, text: str) -> str:
    """Return Markdown that opens at a click."""
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


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
    paths = list(results(root).values())
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
    return "\n\n".join([markdown(header, "l" + "r" * len(ways), lines), f"{origin}."])


def headline(path: Path) -> list[Row]:
    """Return the rows of a file that stand for it: those with the most threads, as most users run it."""
    rows = render.rows(read_today(path))
    most = max(row.result.candidate.threads for row in rows)
    return [row for row in rows if row.result.candidate.threads == most]


def runtimes(root: Path) -> str:
    """Return what every runtime takes: a static twin's time, the others' taxes, and the peak of memory."""
    return "\n\n".join(_runtimes(read_today(path)) for path in _found(root, "runtimes"))


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
    table = markdown(header, "lrr" + "r" * len(columns), cells)
    return "\n\n".join([*_made_by(run.command), table, _legend(run)])


def parts(root: Path) -> str:
    """Return where the time goes: a row for each model, runtime, batch size and number of threads."""
    return "\n\n".join(_parts(record) for record in _records(root, "breakdown", profile.FORMAT))


def _parts(record: dict[str, Any]) -> str:
    header = ["model", "runtime", "batch", "threads", "ms", "over static", *_SHOWN]
    header += ["all else", "MB", "MMAC", "GB/s", "GMAC/s", "of the roof", "takes most"]
    lines: list[list[str]] = []
    roofs = {threads: dict(found) for threads, found in record["ceilings"].items()}
    for threads, found in roofs.items():
        reached = [f"{found[name] / 1e9:.1f}" for name in ("read", "product")]
        name = "what torch reads and multiplies"
        lines.append([name, "", "", threads, *[""] * (len(header) - 8), *reached, "", ""])
    for row in record["profiles"]:
        if ceiling := roofs.get(str(row["threads"])):
            # A runtime can multiply faster than torch does: the roof is the fastest that was seen.
            ceiling["product"] = max(ceiling["product"], _multiplies(row) / (_inside(row) or math.inf))
    whole = {_way(row): row["seconds"] for row in record["profiles"]}
    for row in record["profiles"]:
        seconds, kinds = row["seconds"], row["kinds"]
        twin = whole[_way({**row, "model": twin_of(row["model"]), "lowering": AUTO})]
        shown = [kinds[kind] for kind in _SHOWN]
        moved = sum(row["work"].get(kind, 0) for kind in ("moved", "passed", "constants"))
        multiplies, inside = _multiplies(row), _inside(row)
        most = ", ".join(
            f"{operator} {spent / seconds:.0%} ({kind})" for operator, kind, _, spent in row["operators"][:3]
        )
        cells = [f"{share / seconds:.0%}" for share in (*shown, seconds - sum(shown))]
        amounts = (moved, multiplies)
        rates = [f"{amount / 1e6:.1f}" if amount else "" for amount in amounts]
        rates += [f"{amount / inside / 1e9:.1f}" if amount else "" for amount in amounts]
        ceiling = roofs.get(str(row["threads"]))
        least = ceiling and max(moved / ceiling["read"], multiplies / ceiling["product"])
        rates.append(f"{least / inside:.0%}" if least and inside else "")
        label = row["model"] if row["lowering"] == AUTO else f"{row['model']} ({row['lowering']})"
        whole_call = [f"{seconds * 1e3:.1f}", f"{seconds / twin:.2f}"]
        size = [row["runtime"], str(row["batch"]), str(row["threads"])]
        lines.append([f"`{label}`", *size, *whole_call, *cells, *rates, most])
    table = markdown(header, f"ll{'r' * (len(header) - 3)}l", lines)
    return "\n\n".join([*_made_by(record.get("command", "")), table, _origin(record)])


def _multiplies(row: dict[str, Any]) -> float:
    """Return the multiplies of a profile's dynamic convolutions, of a static model's static ones."""
    return sum(row["work"].get(kind, 0) for kind in MULTIPLIES)


def _inside(row: dict[str, Any]) -> float:
    """Return the seconds that these convolutions took."""
    static = split_name(row["model"])[1] == STATIC
    kinds = (STATIC_CONVOLUTION,) if static else (CONTEXT, FACTORS, CONVOLUTION, LAYOUT)
    return sum(row["kinds"][kind] for kind in kinds)


def _way(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("model", "runtime", "lowering", "batch", "threads"))


def choices(_root: Path) -> str:
    """Return what choosing by price costs against measuring, as ``export/rates.json`` has it."""
    header = ["runtime", "model", "prices from", "auto over the fastest", "each layer's own rule"]
    lines = [
        [
            name,
            f"`{model}`",
            "other layers" if losses["held_out"] else "these layers",
            f"{losses['auto']:.2f}",
            f"{losses['rule']:.2f}",
        ]
        for name, entry in json.loads(cost.RATES.read_text("utf-8")).items()
        for model, losses in entry["over_the_fastest"].items()
    ]
    return _folded(f"{len(lines)} rows", markdown(header, "lllrr", lines))


def training(root: Path) -> str:
    """Return how fast the families train, the fastest way of each model first."""
    return "\n\n".join(
        f"### `{FOLDER}/training/{path.name}`\n\n{_training(_record(path, speed.FORMAT))}"
        for path in _found(root, "training")
    )


def _training(record: dict[str, Any]) -> str:
    header = ["model", "lowering", "batch", "image", "images/s", "of static", "memory MiB"]
    lines: list[list[str]] = []
    # A static twin is measured anew beside each of its families; the first stands for all.
    distinct: dict[tuple[str, str], dict[str, Any]] = {}
    for row in record["rows"]:
        distinct.setdefault((row["model"], speed.way(row)), row)
    for row in sorted(distinct.values(), key=lambda row: (row["model"], -row["over_static"])):
        rate = [f"{row['images_per_second']:.1f}", f"{row['over_static']:.2f}"]
        memory = f"{row['peak_memory_mb'] or ''}"
        size = f"{row['side']} px"
        lines.append([f"`{row['model']}`", speed.way(row), str(row["batch"]), size, *rate, memory])
    load = record["loading"]
    rate = [f"{load['images_per_second']:.1f}", ""]
    lines.append(["loading and warping alone", "", str(load["batch"]), f"{load['side']} px", *rate, ""])
    fastest = max(record["rows"], key=lambda row: row["images_per_second"])
    share = fastest["images_per_second"] / load["images_per_second"]
    waits = f"Loading, which is not in the steps, would take {share:.1%} of the time of the fastest ones."
    table = markdown(header, "llrrrrr", lines)
    return "\n\n".join([*_made_by(record.get("command", "")), table, f"{waits} {_origin(record)}"])


def _origin(record: dict[str, Any]) -> str:
    """Return where and with what a record was measured."""
    found = record["environment"]
    versions = {name: version for name, version in found["versions"].items() if version}
    facts = [
        found["date"],
        found["cpu"],
        None if on_whole_machine(found) else f"held to {found['usable_cores']} of {found['cores']} cores",
        found["gpu"],
        *(f"{name} {each}" for name, each in versions.items()),
    ]
    return f"Measured {', '.join(filter(None, facts))}; commit {found['commit'] or 'unknown'}."


def _records(root: Path, kind: str, form: str) -> list[dict[str, Any]]:
    """Return the committed records of a kind."""
    return [_record(path, form) for path in _found(root, kind)]


def _found(root: Path, kind: str) -> list[Path]:
    """Return the committed files of a kind: those of ``root``, or else of this checkout."""
    for folder in (root / FOLDER / kind, _CHECKOUT / FOLDER / kind):
        if found := sorted(folder.glob("*.json")):
            return found
    raise ZooError(f"there are no records in {root / FOLDER / kind}; docs/ has the commands that make some.")


def _record(path: Path, form: str) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ZooError(f"{path} is not JSON ({error}); measure anew.") from None
    known = isinstance(record, dict) and record.get("format") == form
    if not known or _FACTS - record.get("environment", {}).keys():
        raise ZooError(f"{path} is not a record of this version ({form}); measure anew.")
    return record


def markdown(header: Sequence[str], align: str, lines: Sequence[Sequence[str]]) -> str:
    """Lay out a Markdown table; ``align`` has an ``l`` or ``r`` for each column."""
    rule = "|".join("--:" if side == "r" else "---" for side in align)
    return "\n".join(
        [f"| {' | '.join(header)} |", f"|{rule}|", *(f"| {' | '.join(line)} |" for line in lines)]
    )


def pictures(root: Path) -> dict[str, tuple[str, Callable[[Path], None]]]:
    """Return the picture of every result that has one, of its headline: what it is made from, how to draw it.

    By name relative to ``root``; what it is made from as a digest that it carries. Its bytes say nothing,
    because each version of matplotlib writes others.
    """
    found: dict[str, tuple[str, Callable[[Path], None]]] = {}
    for name, path in results(root).items():
        table = headline(path)
        digest = hashlib.sha256(read_today(path).to_json().encode()).hexdigest()
        if plot.panels(table):
            draw = functools.partial(plot.draw, table, source=digest)
            found[f"docs/images/{_picture(name)}"] = digest, draw
    return found


def _picture(name: str) -> str:
    return f"benchmark_{name}.png"


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
