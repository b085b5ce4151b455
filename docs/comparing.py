"""What the scripts share that compare finished training runs: reading, measuring and writing them."""

import argparse
import json
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import zoo
from zoo import cli
from zoo.cli import portable
from zoo.errors import ZooError
from zoo.training import memory
from zoo.training.checkpoint import FILE, Progress, load_weights
from zoo.training.data import Split, load_cifar10
from zoo.training.evaluate import Evaluation, evaluate, place
from zoo.training.publish import finished_run
from zoo.training.recipe import COMPUTED

#: How the same numbers are computed, up to rounding, which bf16 makes coarse.
HOW = COMPUTED - {"amp"}

Measure = Callable[[Progress, Any, Split, Evaluation], dict[str, Any]]


def compare(
    name: str,
    words: Sequence[str],
    options: argparse.Namespace,
    check: Callable[[Mapping[Path, Progress]], None],
    row: Measure,
    of_run: Callable[[Progress], dict[str, Any]],
    file: str | None = None,
) -> None:
    """Evaluate finished runs and write a file of JSON.

    Args:
        name: of the script.
        words: its command line.
        options: with ``runs``, ``data``, ``draws`` and ``out``.
        check: raises where the runs cannot be compared.
        row: of a run, its model, the test images and what was measured of them, what to write.
        of_run: what else to write, of the first run.
        file: its name without .json; None means that of the script.

    Raises:
        ZooError: the folder is missing, a run is not finished, or ``check`` refuses them.
    """
    cli.check_counts(options, "draws")
    check_folder(options.out)
    memory.keep_freed_memory()
    runs = {run: finished_run(run) for run in options.runs}
    check(runs)
    test = load_cifar10("test", options.data)
    rows = []
    for run, progress in runs.items():
        model = zoo.create_model(progress.recipe.model)
        load_weights(model, run / FILE)
        found = evaluate(place(model), test, draws=options.draws)
        rows.append(row(progress, model, test, found))
        print({key: value for key, value in rows[-1].items() if not isinstance(value, dict)}, flush=True)
    progress = next(iter(runs.values()))
    record = {
        "phases": progress.recipe.phases,
        "lr": progress.recipe.lr,
        "images_seen": progress.step * progress.recipe.batch_size,
        "draws": options.draws,
        "data": test.describe(),
        "command": command(name, words),
        **of_run(progress),
        "rows": rows,
    }
    write(options.out / f"{file or name}.json", record)


def check_folder(out: Path) -> None:
    """Raise a :class:`ZooError` where a script is to write into a folder that is missing."""
    if not out.is_dir():
        raise ZooError(f"there is no folder {out}; make it, or choose another --out.")


def command(name: str, words: Sequence[str]) -> str:
    """Return the command line of a script, without anyone's folders."""
    return shlex.join(["python", f"docs/{name}.py", *map(portable, words)])


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Write what a script found, all of it or nothing."""
    with cli.atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def decisive(progress: Progress, free: Collection[str]) -> dict[str, Any]:
    """Return the settings and the images that decide what a run learns, those in ``free`` left out."""
    settings = progress.recipe.settings() | {"data": (progress.facts.get("data") or {}).get("sha256")}
    return {name: value for name, value in settings.items() if name not in (*free, *HOW)}


def check_settings(runs: Mapping[Path, Progress], free: Collection[str], what: str) -> None:
    """Raise a :class:`ZooError` where two runs differ in a setting, or in their images, that is not ``free``.

    Args:
        runs: by their folders.
        free: what they may differ in.
        what: the same in words, for the error.
    """
    (first, its), *others = runs.items()
    theirs = decisive(its, free)
    for run, progress in others:
        mine = decisive(progress, free)
        if different := [name for name in mine if mine[name] != theirs[name]]:
            raise ZooError(
                f"{first} and {run} differ in {different[0]} too; compare runs that differ in {what}."
            )


def check_start(runs: Mapping[Path, Progress]) -> None:
    """Raise a :class:`ZooError` where two runs start from other weights, as far as is known of these."""
    told_by = ("model", "sha256", "images_seen", "seconds")
    first, *others = runs
    starts = {run: progress.facts.get("started_from") or {} for run, progress in runs.items()}
    for run in others:
        if any(starts[run].get(name) != starts[first].get(name) for name in told_by):
            raise ZooError(f"{first} and {run} start from other weights; compare runs from the same.")


def parser(name: str, doc: str) -> argparse.ArgumentParser:
    """Return a parser of what such a script takes."""
    made = argparse.ArgumentParser(f"python docs/{name}.py", description=doc.splitlines()[0])
    add: Any = made.add_argument
    add("--runs", nargs="+", type=Path, required=True, metavar="DIR", help="folders of finished runs")
    add("--data", metavar="DIR", help="folder of parquet files (default: torchvision's download)")
    add("--draws", type=int, default=3, metavar="N", help="random warps of every image (default: 3)")
    add("--out", type=Path, default=Path(__file__).parent, metavar="DIR", help="default: beside this file")
    return made
