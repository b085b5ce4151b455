"""The command: ``python -m export.benchmark --models "resnet18_*" --output results``.

Its arguments are declared in :mod:`export.benchmark.arguments`.
"""

import argparse
import contextlib
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from export.base import INT8
from export.benchmark import breakdown, compare, plot, profile, render
from export.benchmark.arguments import CSV, PICTURE, RESULTS, TABLE, parse
from export.benchmark.ceilings import ceilings
from export.benchmark.environment import environment
from export.benchmark.plan import Candidate, Plan, Request, plan
from export.benchmark.prepare import Workshop, WrongResult
from export.benchmark.results import Run, read
from export.benchmark.run import Benchmark, Budget
from export.benchmark.subjects import Subjects
from export.benchmark.text import threads_of
from zoo import catalog
from zoo.cli import atomic_path, portable
from zoo.errors import ZooError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 where a candidate was refused because its results were wrong."""
    words = sys.argv[1:] if argv is None else list(argv)
    args = parse(words)
    earlier = read(args.against) if args.against else None
    _check_places(args)
    if args.render:
        show(read(args.render), args.output, earlier)
        return 0
    command = shlex.join(["python", "-m", "export.benchmark", *map(portable, words)])
    return _break_down(args, command) if args.breakdown else _measure(args, earlier, command)


def show(run: Run, folder: Path | None, earlier: Run | None = None) -> None:
    """Print a run's table, and write its files where there is a folder for them: all of them, or none."""
    table = render.rows(run)
    print(f"\n{render.to_text(table)}\n\n{render.legend(run)}")
    if folder is not None:
        _write(run, table, folder)
    if earlier is not None:  # last, because the two may have nothing in common
        print(f"\n{compare.to_text(compare.moves(run, earlier), run, earlier)}")


def _write(run: Run, table: Sequence[render.Row], folder: Path) -> None:
    texts = {
        RESULTS: run.to_json(),
        CSV: render.to_csv(table),
        TABLE: f"{render.to_markdown(table)}\n\n{render.legend(run)}\n",
    }
    reason = plot.obstacle(table)
    with contextlib.ExitStack() as stack:
        for name, text in texts.items():
            stack.enter_context(atomic_path(folder / name)).write_text(text, encoding="utf-8")
        if reason is None:
            plot.draw(table, stack.enter_context(atomic_path(folder / PICTURE)))
    written = [*texts, *([PICTURE] if reason is None else [])]
    print(f"\nwrote {', '.join(written)} to {folder}{f'; no {PICTURE}: {reason}' if reason else ''}")


def _measure(args: argparse.Namespace, earlier: Run | None, command: str) -> int:
    """Measure, print and write what the arguments ask for; ``command`` is what they were, for the record."""
    wants_memory = not args.quick and not args.no_memory
    budget = Budget(args.rounds, args.seconds, args.seed, wants_memory, args.passes)
    planned = plan(
        Request(
            models=_models(args.models),
            runtimes=args.runtimes,
            devices=args.devices,
            dtypes=args.dtypes,
            lowerings=args.lowerings,
            batches=args.batch,
            threads=args.threads,
            peers=not args.quick and not args.no_peers,
            fixed=args.fixed_batch,
        )
    )
    subjects = Subjects(not args.no_pretrained)
    _check_ranges(planned, subjects, args.data)
    print(f"{len(planned.candidates)} candidates, static twins included")
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        workshop = Workshop(subjects, Path(folder), args.certify, args.cuda_graphs, args.data)
        benchmark = Benchmark(planned, workshop, budget, lambda line: print(line, flush=True))
        run = replace(benchmark.run(), command=command)
    if args.json is not None:
        with atomic_path(args.json) as path:
            path.write_text(run.to_json(), encoding="utf-8")
    show(run, args.output, earlier)
    return int(benchmark.wrong)


def _check_ranges(planned: Plan, subjects: Subjects, data: Path | None) -> None:
    """Refuse int8 of trained weights without images: on random inputs it is far off, and so not timed.

    Raises:
        ZooError: such a candidate is planned.
    """
    for candidate in planned.candidates:
        if candidate.dtype == INT8 and data is None and subjects.is_trained(candidate.model):
            raise ZooError(
                f"{INT8} of {candidate.model}'s trained weights needs images for its ranges; give a CIFAR-10 "
                "parquet folder as --data, or --no-pretrained."
            )


def _break_down(args: argparse.Namespace, command: str) -> int:
    """Say where the time goes; what cannot be profiled is said in a line and left out.

    ``command`` is what the arguments were, for the record.

    Raises:
        ZooError: not one candidate could be profiled.
    """
    subjects = Subjects(not args.no_pretrained)
    calls = Budget(args.rounds).rounds
    planned = plan(
        Request(
            models=catalog.names(args.breakdown),
            runtimes=args.runtimes,
            lowerings=args.lowerings,
            batches=args.batch,
            threads=args.threads,
            peers=False,
        )
    )
    facts = environment()  # before a file changes the checkout
    roofs = {threads: ceilings(threads) for threads in args.threads}
    for threads, roof in roofs.items():
        reads, multiplies = (f"{roof[name] / 1e9:.1f}" for name in ("read", "product"))
        print(f"on {threads_of(threads)} torch reads {reads} GB/s and multiplies {multiplies} GMAC/s at most")
    for note in planned.notes:
        print(note)
    profiles: dict[Candidate, profile.Profile] = {}
    texts = []
    wrong = False
    left_out = ""
    for candidate in planned.candidates:
        print(f"profiling {candidate.label} in {candidate.where} at batch {candidate.batch}", flush=True)
        try:
            profiles[candidate] = breakdown.break_down(candidate, subjects, calls)
        except (ZooError, WrongResult) as error:
            wrong |= isinstance(error, WrongResult)
            verb = "refused" if isinstance(error, WrongResult) else "skipped"
            left_out = f"{verb} {candidate.label}, batch {candidate.batch}: {error}"
            print(left_out)
    if not profiles:
        if wrong:
            return 1
        raise ZooError(f"nothing could be profiled: {left_out}")
    beside = {candidate.twin for candidate in profiles if not candidate.is_static}
    for candidate, found in profiles.items():
        if candidate not in beside:  # a twin stands beside its models, and for itself where it has none
            twin = None if candidate.is_static else profiles.get(candidate.twin)
            texts.append(profile.to_text(found, twin))
            print(f"\n{texts[-1]}\n")
    if args.output is not None:
        with atomic_path(args.output / "breakdown.txt") as path:
            path.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    if args.json is not None:
        # What has no twin has nothing to be compared with.
        kept = [found for candidate, found in profiles.items() if candidate.twin in profiles]
        with atomic_path(args.json) as path:
            path.write_text(profile.to_json(kept, facts, roofs, command), encoding="utf-8")
    return int(wrong)


def _models(patterns: Sequence[str]) -> list[str]:
    names = catalog.names(patterns, pretrained=not patterns)
    if not names:
        raise ZooError("no model has trained weights; name some with --models.")
    return names


def _check_places(args: argparse.Namespace) -> None:
    """Find now, rather than after minutes of measuring, that a file cannot be written."""
    if args.output is not None:
        try:
            args.output.mkdir(exist_ok=True)
        except OSError as error:
            reason = error.strerror
            raise ZooError(f"cannot write to {args.output}: {reason}; give another --output.") from None
    if args.json is not None and args.json.is_dir():
        raise ZooError(f"cannot write {args.json}: it is a folder; name a file in it.")
    for folder in (args.output, args.json and args.json.parent):
        if folder is not None and not os.access(folder, os.W_OK):
            raise ZooError(f"cannot write to {folder}: it is no folder, or not writable; give another.")
