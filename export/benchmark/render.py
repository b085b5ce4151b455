"""Tables of a run, for a terminal, as Markdown and as CSV."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from export.benchmark.engines import ENGINES
from export.benchmark.environment import machine
from export.benchmark.handoff import CORES, FAR, NEAR
from export.benchmark.results import Result, Run
from export.benchmark.statistics import Interval, Latency, bootstrap_median, latency
from export.benchmark.text import aligned

_STEADY = 1.15
"""How far apart the taxes of a row's passes (of a single one: halves) may be for one regime."""


@dataclass(frozen=True)
class Row:
    """A result with everything that follows from its samples.

    Attributes:
        result: as measured.
        latency: over all of its calls, in seconds.
        throughput: images a second over all of its calls.
        tax: latency over the static twin's; None for a static model, and where the twin is missing.
    """

    result: Result
    latency: Latency
    throughput: float
    tax: Interval | None


class Column(NamedTuple):
    """One column of the table for people.

    Attributes:
        title: its heading.
        cell: its content for a row, as text.
        words: whether it is aligned to the left.
        always: whether it appears even where all its cells are alike.
    """

    title: str
    cell: Callable[[Row], str]
    words: bool = False
    always: bool = True


def rows(run: Run) -> list[Row]:
    """Return the rows: by runtime, threads, batch and backbone, the static twin first, the others by tax.

    Cores that are near go before cores that are far.
    """
    return sorted(map(_row, run.results), key=_place)


def to_text(table: Sequence[Row]) -> str:
    """Lay the rows out for a terminal."""
    columns, cells = _cells(table)
    return aligned(cells, "".join("l" if column.words else "r" for column in columns))


def to_markdown(table: Sequence[Row]) -> str:
    """Lay the rows out as a Markdown table."""
    columns, (header, *lines) = _cells(table)
    rule = "|".join("---" if column.words else "--:" for column in columns)
    return "\n".join([_piped(header), f"|{rule}|", *map(_piped, lines)])


def to_csv(table: Sequence[Row]) -> str:
    """Return every figure of every row as CSV, in the units of the headings; what is missing is empty."""
    stream = io.StringIO()
    records = [_record(row) for row in table]
    writer = csv.DictWriter(stream, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue()


def legend(run: Run) -> str:
    """Return what the columns mean, where the figures come from, and which rows' taxes are of two regimes."""
    env = run.environment
    versions = ", ".join(f"{name} {version}" for name, version in env["versions"].items() if version)
    gpu = f", {env['gpu']}" if env["gpu"] else ""
    lines = [
        "tax: latency over the static twin's right beside it, median over rounds [95 % bootstrap interval].",
        "p50, p90, p99: of single calls. images/s: over all calls. MACs: of one image, as deployed.",
        f"{env['date']}, {machine(env)}, {env['usable_cores'] or env['cores']} cores{gpu}, "
        f"{env['os']}, python {env['python']}, {versions}.",
        f"Load average {env['load']} at the start and {env.get('load_at_the_end')} at the end; "
        f"commit {env['commit'] or 'unknown'}.",
    ]
    if "wall_seconds" in env:
        lines.append(f"The run took {env['wall_seconds']:.0f} s, exports included.")
    if any(result.memory_bytes for result in run.results):
        lines.insert(2, "memory: what a process's peak rises by while it loads and runs the artifact.")
    if counts := {len(result.rounds_ns) for result in run.results}:
        fewest, most = min(counts), max(counts)
        lines.append(f"Rounds: {fewest}{f' to {most}' if most > fewest else ''}.")
    if ways := _ways_between_cores(run):
        lines.append(ways)
    if random := sorted({result.candidate.model for result in run.results if not result.trained}):
        lines.append(f"Timed with random weights: {', '.join(random)}.")
    if unsteady := [text for result in run.results if (text := _unsteady(result))]:
        found = "; ".join(unsteady)
        lines.append(f"Unsteady, the tax of all rounds and of each pass, or half of a single one: {found}.")
    return "\n".join([*lines, *run.notes])


def _ways_between_cores(run: Run) -> str:
    """Return how long a cache line took from core to core and back in rows that are told apart by it."""
    seen: dict[str, list[int]] = {NEAR: [], FAR: []}
    for result in run.results:
        if result.handoff_ns:
            seen[result.candidate.cores] += result.handoff_ns
    found = [
        f"{cores}, {np.median(each):.0f} ns ({np.percentile(each, 5):.0f} to {np.percentile(each, 95):.0f})"
        for cores, each in seen.items()
        if each
    ]
    if not found:
        return ""
    return f"cores: a cache line from one core to the other and back, median (9 of 10): {'; '.join(found)}."


def _unsteady(result: Result) -> str | None:
    """Return what a result is called and its tax in each pass; None where they agree.

    A median over rounds of several regimes describes none. A single pass is held against itself, by halves.
    """
    if not result.twin_ns or len(result.rounds) < 2:
        return None
    whole, passes = np.concatenate(result.ratios), result.ratios
    halves = whole[: len(whole) // 2], whole[len(whole) // 2 :]
    medians = [float(np.median(part)) for part in (halves if len(passes) == 1 else passes)]
    if max(medians) <= _STEADY * min(medians):
        return None
    candidate, each = result.candidate, " / ".join(f"{median:.2f}" for median in medians)
    return f"{candidate.label} {candidate.how} {np.median(whole):.2f}: {each}"


def _row(result: Result) -> Row:
    seen = latency(result.rounds)
    return Row(
        result,
        seen,
        result.candidate.batch / seen.mean,
        bootstrap_median(result.ratios) if result.twin_ns else None,
    )


def _place(row: Row) -> tuple:
    candidate = row.result.candidate
    engines = list(ENGINES)
    runtime = engines.index(candidate.runtime) if candidate.runtime in engines else len(engines)
    backbone = candidate.twin.model
    tax = row.tax.value if row.tax else 0.0
    threads = candidate.threads, CORES.index(candidate.cores)
    group = (runtime, candidate.where, *threads, candidate.batch, backbone)
    return (*group, not candidate.is_static, tax, candidate.label)


def _maybe(value: float | None, text: str, unit: float = 1) -> str:
    return "" if value is None else text.format(value / unit)


def tax_cell(row: Row) -> str:
    """Return a row's tax and its interval as text; a static model has the word ``twin`` instead."""
    if row.tax is None:
        return "twin" if row.result.candidate.is_static else ""
    return "{:.2f} [{:.2f}, {:.2f}]".format(*row.tax)


COLUMNS = (
    Column("model", lambda row: row.result.candidate.label, words=True),
    Column("runtime", lambda row: row.result.candidate.where, words=True),
    Column("batch", lambda row: str(row.result.candidate.batch)),
    Column("threads", lambda row: str(row.result.candidate.threads), always=False),
    Column("cores", lambda row: row.result.candidate.cores, words=True, always=False),
    Column("p50 ms", lambda row: f"{row.latency.p50 * 1e3:.2f}"),
    Column("p90 ms", lambda row: f"{row.latency.p90 * 1e3:.2f}"),
    Column("p99 ms", lambda row: f"{row.latency.p99 * 1e3:.2f}"),
    Column("images/s", lambda row: f"{row.throughput:,.0f}"),
    Column("tax [95 % CI]", tax_cell),
    Column("file MB", lambda row: _maybe(row.result.file_bytes, "{:.1f}", 1e6)),
    Column("memory MB", lambda row: _maybe(row.result.memory_bytes, "{:.0f}", 1e6), always=False),
    Column("params", lambda row: f"{row.result.params / 1e6:.2f} M"),
    Column("MACs", lambda row: f"{row.result.macs / 1e6:,.0f} M"),
    Column("top-1", lambda row: _maybe(row.result.top1, "{:.2f} %")),
)


def _cells(table: Sequence[Row]) -> tuple[list[Column], list[list[str]]]:
    """Return the columns to show and their cells line by line, the headings first."""
    shown = [column for column in COLUMNS if column.always or len({column.cell(row) for row in table}) > 1]
    lines = [[column.cell(row) for column in shown] for row in table]
    return shown, [[column.title for column in shown], *lines]


def _piped(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _record(row: Row) -> dict[str, Any]:
    result, candidate = row.result, row.result.candidate
    tax = row.tax or (None, None, None)
    return {
        "model": candidate.model,
        "lowering": candidate.lowering,
        "fixed": candidate.fixed,
        "runtime": candidate.runtime,
        "device": candidate.device,
        "dtype": candidate.dtype,
        "threads": candidate.threads,
        "cores": candidate.cores,
        "batch": candidate.batch,
        **{f"{name}_ms": value * 1e3 for name, value in row.latency._asdict().items()},
        "images_per_second": row.throughput,
        **dict(zip(("tax", "tax_low", "tax_high"), tax, strict=True)),
        "file_bytes": result.file_bytes,
        "memory_bytes": result.memory_bytes,
        "params": result.params,
        "macs": result.macs,
        "top1": result.top1,
        "trained": result.trained,
        "relative_error": result.error,
        "rounds": len(result.rounds),
        "calls": sum(map(len, result.rounds)),
    }
