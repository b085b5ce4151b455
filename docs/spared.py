"""Compare runs that differ in nothing but the shares of training images that were not warped.

python -m zoo.train --recipe finish --model mobilenetv3_small_100_static --upright 0 --run-dir runs/warped
python -m zoo.train --recipe finish --model mobilenetv3_small_100_static --run-dir runs/upright
python docs/spared.py --runs runs/warped runs/upright --data ../shared/cifar10

Writes spared.json, which docs/results.md shows. Needs ``pip install -e '.[train]'``.
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
from zoo.training.data import first, load_cifar10
from zoo.training.evaluate import figures, place
from zoo.training.invariance import curves
from zoo.training.publish import finished_run, portable

SHARES = ("upright", "turned")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    words = sys.argv[1:] if argv is None else list(argv)
    options = _parser().parse_args(words)
    cli.check_counts(options, "images", "draws")
    if not options.out.is_dir():
        raise ZooError(f"there is no folder {options.out}; make it, or choose another --out.")
    memory.keep_freed_memory()
    runs = {run: finished_run(run) for run in options.runs}
    check_alike(runs)
    test = load_cifar10("test", options.data)
    rows = []
    for run, progress in runs.items():
        model = zoo.create_model(progress.recipe.model)
        load_weights(model, run / FILE)
        found = figures(place(model), test, draws=options.draws)
        followed = curves(model, first(test, options.images))
        shares = {name: getattr(progress.recipe.augmentation, name) for name in SHARES}
        kept = {name: found[name] for name in found if name.startswith("top1")}
        rows.append({**shares, **kept, "curves": followed})
        print(f"{shares}: {kept}", flush=True)
    progress = next(iter(runs.values()))
    record = {
        "model": progress.recipe.model,
        "phases": progress.recipe.phases,
        "lr": progress.recipe.lr,
        "started_from": progress.facts.get("started_from"),
        "images_seen": progress.step * progress.recipe.batch_size,
        "data": test.describe(),
        "command": shlex.join(["python", "docs/spared.py", *map(portable, words)]),
        "rows": rows,
    }
    with cli.atomic_path(options.out / "spared.json") as path:
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def check_alike(runs: Mapping[Path, Progress]) -> None:
    """Make sure that nothing but the shares can have made the difference between runs.

    Raises:
        ZooError: some other setting, the images or the start is not the same; or there is nothing to compare.
    """
    shares = {tuple(getattr(run.recipe.augmentation, name) for name in SHARES) for run in runs.values()}
    if len(shares) < len(runs) or len(runs) < 2:
        raise ZooError("give two runs or more, each with a share of its own of images that are not warped.")
    (one, its), *others = runs.items()
    mine = _decisive(its)
    for other, progress in others:
        for name, value in _decisive(progress).items():
            if value != mine[name]:
                raise ZooError(
                    f"{one} and {other} differ in {name} too; "
                    "compare runs that differ in nothing but their shares of images that are not warped."
                )


def _decisive(progress: Progress) -> dict[str, Any]:
    """Return what decides what a run learns, the shares left out."""
    facts = progress.facts
    start = facts.get("started_from") or {}
    told_by = ("model", "sha256", "images_seen", "seconds")
    decisive = progress.recipe.settings() | {"started_from": [start.get(name) for name in told_by]}
    decisive["data"] = (facts.get("data") or {}).get("sha256")
    # How the same numbers are computed, up to rounding.
    how = ("threads", "compile", "channels_last", "lowering")
    return {name: value for name, value in decisive.items() if name not in (*SHARES, *how)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python docs/spared.py", description=__doc__.splitlines()[0])
    add: Any = parser.add_argument
    add("--runs", nargs="+", type=Path, required=True, metavar="DIR", help="folders of finished runs")
    add("--data", metavar="DIR", help="folder of parquet files (default: torchvision's download)")
    add("--images", type=int, default=1000, metavar="N", help="to follow through the warps (default: 1000)")
    add("--draws", type=int, default=3, metavar="N", help="random warps of every image (default: 3)")
    add("--out", type=Path, default=Path(__file__).parent, metavar="DIR", help="default: beside this file")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(main))
