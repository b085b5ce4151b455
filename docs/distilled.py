"""Tell what learning from a teacher as well brings: two runs from the same weights, one of them with it.

python -m zoo.train --model resnet18_dpk ... --run-dir runs/alone
python -m zoo.train --model resnet18_dpk ... --teacher resnet18_static --run-dir runs/taught
python docs/distilled.py --runs runs/alone runs/taught --data ../shared/cifar10

Writes distilled.json, which docs/results.md shows. Needs ``pip install -e '.[train]'``.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from comparing import check_settings, check_start, compare, parser

from export.report.gains import paired_gains
from zoo import cli
from zoo.errors import ZooError
from zoo.training.checkpoint import Progress
from zoo.training.evaluate import Evaluation

#: What the two may differ in.
FREE = ("teacher", "distillation", "attention")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    words = sys.argv[1:] if argv is None else list(argv)
    options = parser("distilled", __doc__).parse_args(words)
    alone: list[Evaluation] = []

    def row(progress: Progress, _model: Any, _test: Any, found: Evaluation) -> dict[str, Any]:
        alone.append(found)
        clean, augmented = paired_gains(found.answers(), alone[0].answers())
        kept = {name: found.figures()[name] for name in ("top1", "top1_augmented")}
        gains = {"gain": clean, "gain_augmented": augmented} if len(alone) > 1 else {}
        return {"teacher": progress.recipe.teacher, **kept, **gains}

    def of_run(progress: Progress) -> dict[str, Any]:
        return {"model": progress.recipe.model}

    compare("distilled", words, options, check_pair, row, of_run)
    return 0


def check_pair(runs: Mapping[Path, Progress]) -> None:
    """Make sure that nothing but the teacher can have made the difference between two runs.

    Raises:
        ZooError: they are not two, the second alone with a teacher; or some other setting, the images or the
            start is not the same.
    """
    if [bool(run.recipe.teacher) for run in runs.values()] != [False, True]:
        raise ZooError("give two runs, first the one without a teacher, then the one with it.")
    check_settings(runs, FREE, "their teacher")
    check_start(runs)


if __name__ == "__main__":
    sys.exit(cli.run(main))
