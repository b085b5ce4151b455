"""Tell how far runs lie apart that differ in their seed alone, beside those of another model.

python -m zoo.train --recipe finish --model resnet18_static --seed 1 --run-dir runs/static_1    # and so on
python docs/seeds.py --runs runs/static_* runs/kw_* --data ../shared/cifar10

Writes seeds.json, which docs/results.md shows. Needs ``pip install -e '.[train]'``.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import zoo
from zoo import cli
from zoo.errors import ZooError
from zoo.training import memory
from zoo.training.checkpoint import FILE, Progress, load_weights
from zoo.training.data import load_cifar10
from zoo.training.evaluate import figures, place
from zoo.training.publish import finished_run, portable

#: What two runs may differ in: what is compared, and how the same numbers are computed, up to rounding.
FREE = ("model", "seed", "warm_start", "threads", "compile", "channels_last", "lowering")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    words = sys.argv[1:] if argv is None else list(argv)
    options = _parser().parse_args(words)
    cli.check_counts(options, "draws")
    if not options.out.is_dir():
        raise ZooError(f"there is no folder {options.out}; make it, or choose another --out.")
    memory.keep_freed_memory()
    runs = {run: finished_run(run) for run in options.runs}
    check_alike(runs)
    test = load_cifar10("test", options.data)
    rows = []
    for run, progress in runs.items():
        recipe = progress.recipe
        model = zoo.create_model(recipe.model)
        load_weights(model, run / FILE)
        found = figures(place(model), test, draws=options.draws)
        kept = {name: found[name] for name in ("top1", "top1_augmented")}
        rows.append({"model": recipe.model, "seed": recipe.seed, **kept})
        print(f"{recipe.model}, seed {recipe.seed}: {kept}", flush=True)
    progress = next(iter(runs.values()))
    record = {
        "phases": progress.recipe.phases,
        "lr": progress.recipe.lr,
        "images_seen": progress.step * progress.recipe.batch_size,
        "draws": options.draws,
        "data": test.describe(),
        "command": shlex.join(["python", "docs/seeds.py", *map(portable, words)]),
        "rows": rows,
    }
    with cli.atomic_path(options.out / "seeds.json") as path:
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def check_alike(runs: Mapping[Path, Progress]) -> None:
    """Make sure that runs of a model differ in nothing but their seed, and models in nothing but their start.

    Raises:
        ZooError: some other setting, the images or a model's start is not the same, a seed comes twice, or a
            model has one run only.
    """
    seeds: dict[str, list[int]] = {}
    starts: dict[str, tuple[Path, Any]] = {}
    (first, its), *_ = runs.items()
    for run, progress in runs.items():
        seeds.setdefault(progress.recipe.model, []).append(progress.recipe.seed)
        mine, theirs = _decisive(progress), _decisive(its)
        if different := [name for name in mine if mine[name] != theirs[name]]:
            raise ZooError(
                f"{first} and {run} differ in {different[0]} too; compare runs that differ in seed and model."
            )
        start = (progress.facts.get("started_from") or {}).get("sha256")
        other, its_start = starts.setdefault(progress.recipe.model, (run, start))
        if start != its_start:
            raise ZooError(f"{other} and {run} start from other weights; compare runs from the same.")
    for model, given in seeds.items():
        if len(given) < 2 or len(set(given)) < len(given):
            raise ZooError(f"give two runs or more of {model}, each with a seed of its own.")


def _decisive(progress: Progress) -> dict[str, Any]:
    """Return what decides what a run learns, what may differ left out."""
    decisive = progress.recipe.settings() | {"data": (progress.facts.get("data") or {}).get("sha256")}
    return {name: value for name, value in decisive.items() if name not in FREE}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python docs/seeds.py", description=__doc__.splitlines()[0])
    add: Any = parser.add_argument
    add("--runs", nargs="+", type=Path, required=True, metavar="DIR", help="folders of finished runs")
    add("--data", metavar="DIR", help="folder of parquet files (default: torchvision's download)")
    add("--draws", type=int, default=3, metavar="N", help="random warps of every image (default: 3)")
    add("--out", type=Path, default=Path(__file__).parent, metavar="DIR", help="default: beside this file")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(main))
