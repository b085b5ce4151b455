"""Compare runs that differ in nothing but the shares of training images that were not warped.

python -m zoo.train --recipe cpu --model mobilenetv3_small_100_static --upright 0 --run-dir runs/warped
python -m zoo.train --recipe cpu --model mobilenetv3_small_100_static --run-dir runs/upright
python docs/spared.py --runs runs/warped runs/upright --data ../shared/cifar10

Writes spared.json, which docs/results.md shows. Needs ``pip install -e '.[train]'``.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from comparing import check_settings, check_start, compare, parser

from zoo import cli
from zoo.errors import ZooError
from zoo.training.checkpoint import Progress
from zoo.training.data import Split, first
from zoo.training.evaluate import Evaluation
from zoo.training.invariance import curves

SHARES = ("upright", "turned")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    words = sys.argv[1:] if argv is None else list(argv)
    given = parser("spared", __doc__)
    help_ = "to follow through the warps (default: 1000)"
    given.add_argument("--images", type=int, default=1000, metavar="N", help=help_)
    options = given.parse_args(words)
    cli.check_counts(options, "images")

    def row(progress: Progress, model: Any, test: Split, measured: Evaluation) -> dict[str, Any]:
        found = measured.figures()
        shares = {name: getattr(progress.recipe.augmentation, name) for name in SHARES}
        kept = {name: found[name] for name in found if name.startswith("top1")}
        return {**shares, **kept, "curves": curves(model, first(test, options.images))}

    def of_run(progress: Progress) -> dict[str, Any]:
        return {"model": progress.recipe.model, "started_from": progress.facts.get("started_from")}

    compare("spared", words, options, check_alike, row, of_run)
    return 0


def check_alike(runs: Mapping[Path, Progress]) -> None:
    """Make sure that nothing but the shares can have made the difference between runs.

    Raises:
        ZooError: some other setting, the images or the start is not the same; or there is nothing to compare.
    """
    shares = {tuple(getattr(run.recipe.augmentation, name) for name in SHARES) for run in runs.values()}
    if len(shares) < len(runs) or len(runs) < 2:
        raise ZooError("give two runs or more, each with a share of its own of images that are not warped.")
    check_settings(runs, SHARES, "nothing but their shares of images that are not warped")
    check_start(runs)


if __name__ == "__main__":
    sys.exit(cli.run(main))
