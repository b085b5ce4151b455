"""The command: ``python -m export.benchmark --models "resnet18_*" --output results``."""

import argparse
import contextlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.benchmark import breakdown, compare, plot, profile, render
from export.benchmark.engines import ENGINES
from export.benchmark.plan import Candidate, Wish, plan
from export.benchmark.prepare import Workshop
from export.benchmark.results import Run, read
from export.benchmark.run import Benchmark, Effort
from export.benchmark.subjects import Subjects
from zoo import catalog
from zoo.cli import atomic_path
from zoo.errors import ZooError
from zoo.models import check_name

RESULTS, CSV, TABLE, PICTURE = "results.json", "results.csv", "table.md", "accuracy_latency.png"
_QUICK = {"runtimes": ["onnx"], "batch": [1, 8], "rounds": 20, "seconds": 8.0, "devices": ["cpu"]}
_USUAL = {"runtimes": None, "batch": [1, 8], "rounds": 40, "seconds": 60.0, "devices": ["cpu", "cuda"]}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 where a candidate was refused because its results were wrong."""
    args = _parser().parse_args(argv)
    for name, value in (_QUICK if args.quick else _USUAL).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    earlier = read(args.against) if args.against else None
    _prepare_folder(args.output)
    if args.render:
        show(read(args.render), args.output or args.render.parent, earlier)
        return 0
    if args.breakdown:
        return _break_down(args)
    return _measure(args, earlier)


def show(run: Run, folder: Path | None, earlier: Run | None = None) -> None:
    """Print a run's table, and write its files where there is a folder for them: all of them, or none."""
    table = render.rows(run)
    print(f"\n{render.to_text(table)}\n\n{render.legend(run)}")
    if earlier is not None:
        print(f"\n{compare.to_text(compare.moves(run, earlier), run, earlier)}")
    if folder is None:
        return
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


def _measure(args: argparse.Namespace, earlier: Run | None) -> int:
    """Measure, print and write what the arguments ask for."""
    effort = Effort(args.rounds, args.seconds, args.seed, memory=not args.quick and not args.no_memory)
    planned = plan(
        Wish(
            models=_models(args.models),
            runtimes=_runtimes(args.runtimes),
            devices=args.devices,
            dtypes=args.dtypes,
            lowerings=args.lowerings,
            batches=args.batch,
            threads=args.threads,
            peers=not args.quick and not args.no_peers,
        )
    )
    print(f"{len(planned.candidates)} candidates, static twins included")
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        workshop = Workshop(Subjects(not args.no_pretrained), Path(folder), args.certify, args.cuda_graphs)
        benchmark = Benchmark(planned, workshop, effort, lambda line: print(line, flush=True))
        show(benchmark.run(), args.output, earlier)
    return int(benchmark.wrong)


def _break_down(args: argparse.Namespace) -> int:
    """Say where onnxruntime's time goes."""
    subjects = Subjects(not args.no_pretrained)
    texts = []
    for batch in args.batch:
        wish = Candidate(
            check_name(args.breakdown), lowering=args.lowerings[0], batch=batch, threads=args.threads[0]
        )
        print(f"profiling {wish.label} and its static twin at batch {batch}", flush=True)
        both = {each: breakdown.break_down(each, subjects, args.rounds) for each in (wish, wish.twin)}
        texts.append(profile.to_text(both[wish], None if wish.is_static else both[wish.twin]))
        print(f"\n{texts[-1]}\n")
    if args.output is not None:
        with atomic_path(args.output / "breakdown.txt") as path:
            path.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    return 0


def _models(patterns: Sequence[str]) -> list[str]:
    names = catalog.names(patterns, pretrained=not patterns)
    if not names:
        raise ZooError("no model has trained weights; name some with --models.")
    return names


def _runtimes(names: Sequence[str] | None) -> list[str]:
    if names is None:
        return [name for name, engine in ENGINES.items() if not engine.slow]
    return list(ENGINES) if "all" in names else list(names)


def _prepare_folder(folder: Path | None) -> None:
    """Make the folder for results now, rather than find after minutes that it cannot be."""
    if folder is None:
        return
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ZooError(f"cannot write to {folder}: {error.strerror}; give another --output.") from None
    if not os.access(folder, os.W_OK):
        raise ZooError(f"cannot write to {folder}: it is not writable; give another --output.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.benchmark",
        description="What dynamic-kernel models cost where they will run, next to their static twins.",
        epilog="Exit codes: 0, 1 a candidate computed something else than its model, 2 bad input.",
    )
    add = parser.add_argument
    words: dict[str, Any] = {"nargs": "+", "metavar": "NAME"}
    numbers: dict[str, Any] = {"nargs": "+", "type": int, "metavar": "N"}
    add("--models", default=[], **words, help='names or patterns, as "*_dpk" (default: those with weights)')
    add("--runtimes", **words, help=f"of {', '.join(ENGINES)}, or all (default: all that prepare quickly)")
    add("--devices", **words, help="cpu, cuda, or what else a runtime has (default: cpu cuda)")
    add("--dtypes", default=["fp32"], **words, help="fp32, bf16 (default: fp32)")
    add("--lowerings", default=["auto"], **words, help="auto, names of lowerings, or all (default: auto)")
    add("--batch", **numbers, help="batch sizes (default: 1 8)")
    add("--threads", default=[1], **numbers, help="threads of an operator (default: 1)")
    add("--rounds", type=int, help="rounds of each batch size, at most (default: 40)")
    add("--seconds", type=float, help="after which a batch size begins no further round (default: 60)")
    add("--seed", type=int, default=0, help="of the order within rounds (default: 0)")
    add("--quick", action="store_true", help="onnx on the CPU, batch 1 and 8, few rounds, no peers or memory")
    add("--no-peers", action="store_true", help="leave out what people run today")
    add("--no-memory", action="store_true", help="leave out peak memory")
    add("--no-pretrained", action="store_true", help="random weights; the time is the same")
    add("--certify", action="store_true", help="the whole parity certificate for every artifact")
    add("--cuda-graphs", action="store_true", help="replay recorded graphs on CUDA, where a runtime can")
    add("--output", type=Path, metavar="DIR", help=f"folder for {RESULTS}, {CSV}, {TABLE}, {PICTURE}")
    add("--against", type=Path, metavar="FILE", help=f"compare the taxes with an earlier {RESULTS}")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--render", type=Path, metavar="FILE", help=f"write the tables of a {RESULTS} anew")
    other.add_argument("--breakdown", metavar="MODEL", help="where onnxruntime's time goes, layer by layer")
    return parser
