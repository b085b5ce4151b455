"""What this project aims at, and what of it the committed results reach: a table of docs/performance.md."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from export.benchmark import render
from export.benchmark.environment import machine
from export.benchmark.handoff import CORES
from export.benchmark.plan import Candidate
from export.benchmark.render import Row
from export.benchmark.text import threads_of
from export.report import benchmarks, markdown
from zoo.catalog import split_name

GOALS: dict[str, dict[int, float]] = {
    "resnet18_fgk": {1: 0.7, 8: 0.8},
    "resnet18_dpk": {1: 1.0, 8: 1.2},
    **{f"resnet18_{family}": {1: 1.3, 8: 1.3} for family in ("kw", "kwb", "condconv", "dyconv")},
    **{
        f"mobilenetv2_100_{family}": {1: 1.3, 8: 1.3}
        for family in ("kw", "kwb", "fgk", "dpk", "condconv", "dyconv")
    },
}
"""The dynamic taxes this project aims at, by model and batch size, in fp32 on a CPU."""

ALLOWANCE = {"openvino": 0.3}
"""How much above its goal a tax may be on a runtime."""


def goals(root: Path) -> str:
    """Return what was reached of :data:`GOALS`: a table for each machine, a row a model and runtime.

    A goal is met where all of the tax's interval is within it. What a machine measured twice counts once, as
    the file with the most goals of so many threads and cores so far apart has it, the latest of those: a file
    has few rows of a distance that it met now and then. Runs held to a part of their machine's cores do not
    count: others had the rest.
    """
    machines: dict[str, dict[Candidate, _Entry]] = {}
    for path in benchmarks.on_whole_machines(root):
        run = benchmarks.read_today(path)
        here = {row.result.candidate: row for row in render.rows(run) if _counts(row)}
        alike = Counter(_way(candidate)[:2] for candidate in here)
        found = machines.setdefault(machine(run.environment), {})
        for candidate, row in here.items():
            rank = alike[_way(candidate)[:2]], run.environment["date"]
            entry = _Entry(rank, path.name, row)
            found[candidate] = max(found.get(candidate, entry), entry, key=lambda each: each.rank)
    return "\n\n".join(_goals(name, rows) for name, rows in machines.items() if rows)


class _Entry(NamedTuple):
    """A row with the name of its file, and how that ranks among others of the machine."""

    rank: tuple[int, str]
    file: str
    row: Row


def _counts(row: Row) -> bool:
    """Tell whether there is a goal for a row."""
    candidate = row.result.candidate
    return row.tax is not None and candidate.is_usual and _goal(candidate) is not None


def _goal(candidate: Candidate) -> float | None:
    """Return the tax that is aimed at, None where there is no such aim."""
    wanted = GOALS.get(candidate.model, {}).get(candidate.batch)
    return None if wanted is None else round(wanted + ALLOWANCE.get(candidate.runtime, 0.0), 2)


_Way = tuple[int, int, int]
"""A column: the threads, how far their cores are apart as an index of ``CORES``, and the batch size."""


def _way(candidate: Candidate) -> _Way:
    return candidate.threads, CORES.index(candidate.cores), candidate.batch


def _threads(count: int, cores: int) -> str:
    return threads_of(count, CORES[cores])


def _goals(name: str, rows: dict[Candidate, _Entry]) -> str:
    ways = sorted(set(map(_way, rows)))
    lines: dict[tuple[str, str], dict[_Way, str]] = {}
    aims: dict[tuple[str, str], list[float]] = {}
    counts: dict[tuple[int, int], list[bool]] = {}
    for candidate, (_, _, row) in rows.items():
        wanted = _goal(candidate)
        assert wanted is not None
        assert row.tax is not None
        met = round(row.tax.high, 2) <= wanted  # rounded as the tables of results show it
        way = _way(candidate)
        counts.setdefault(way[:2], []).append(met)
        key = candidate.model, candidate.where
        text = f"{row.tax.value:.2f}"
        lines.setdefault(key, {})[way] = f"**{text}**" if met else text
        aims[key] = [
            _goal(replace(candidate, batch=batch)) or 0.0 for batch in sorted(GOALS[candidate.model])
        ]
    header = ["model", "runtime", "goal", *(f"batch {batch}, {_threads(*how)}" for *how, batch in ways)]
    cells = [
        [
            f"`{model}`",
            where,
            " / ".join(f"{wanted:.1f}" for wanted in aims[model, where]),
            *(lines[model, where].get(way, "") for way in ways),
        ]
        for model, where in sorted(lines, key=lambda key: (split_name(key[0])[0], key[1], key[0]))
    ]
    sums = [f"{sum(met)} of {len(met)} with {_threads(*how)}" for how, met in sorted(counts.items())]
    files = ", ".join(f"`{file}`" for file in dict.fromkeys(file for _, file, _ in rows.values()))
    table = markdown.table(header, "llr" + "r" * len(ways), cells)
    return f"{table}\n\n{name}, {files}: met are {'; '.join(sums)}."
