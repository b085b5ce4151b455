"""Tell how far runs lie apart that differ in their seed alone, or models that are trained alike.

python -m zoo.train --recipe cpu --model resnet18_static --warm-start FILE --seed 1 --run-dir runs/static_1
python docs/seeds.py --runs runs/static_* runs/kw_* --data ../shared/cifar10

Runs of a model start from the same weights, or all from none. With the seeds of its static twin a model is
held against that seed by seed. How far its kernels move from one image to another says how dynamic it became.
Runs of it with frozen parameters (``--freeze``) are a model of their own; those of the same seed that come
before, without, are held against them.

Writes NAME.json; docs/results.md shows seeds.json and trained_on.json. Needs ``pip install -e '.[train]'``.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from comparing import check_settings, check_start, compare, parser
from torch import nn
from turning import layers_of, moves_between

from export.benchmark.subjects import twin_of
from export.report.gains import paired_gains
from zoo import cli
from zoo.errors import ZooError
from zoo.training.answers import Answers
from zoo.training.checkpoint import Progress
from zoo.training.data import Split
from zoo.training.evaluate import Evaluation

#: What two runs may differ in.
FREE = ("model", "seed", "warm_start", "freeze")
#: Test images between which kernels move, from the first.
COMPARED = 64


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    words = sys.argv[1:] if argv is None else list(argv)
    made = parser("seeds", __doc__)
    made.add_argument("--name", default="seeds", help="of what is written, without .json (default: seeds)")
    options = made.parse_args(words)
    answers: dict[tuple[str, tuple[str, ...], int], Answers] = {}

    def row(progress: Progress, model: nn.Module, test: Split, found: Evaluation) -> dict[str, Any]:
        kept: dict[str, Any] = {name: found.figures()[name] for name in ("top1", "top1_augmented")}
        if layers := layers_of(model):
            kept["moves"] = moves_between(model.eval(), layers, test.images[:COMPARED])
        name, frozen, seed = progress.recipe.model, progress.recipe.freeze, progress.recipe.seed
        mine = answers[name, frozen, seed] = found.answers()
        twin = twin_of(name), (), seed
        if twin in answers and twin[0] != name:
            kept["gain"], kept["gain_augmented"] = paired_gains(mine, answers[twin])
        whole = name, (), seed
        if frozen and whole in answers:
            kept["gain_unfrozen"], kept["gain_unfrozen_augmented"] = paired_gains(answers[whole], mine)
        return {"model": name, "frozen": list(frozen), "seed": seed, **kept}

    compare("seeds", words, options, check_alike, row, _start, options.name)
    return 0


def _start(progress: Progress) -> dict[str, Any]:
    """Return whether runs start from weights."""
    return {"from_weights": bool(progress.facts.get("started_from"))}


def check_alike(runs: Mapping[Path, Progress]) -> None:
    """Make sure that runs of a model differ in nothing but their seed, and models in nothing but their start.

    Raises:
        ZooError: some other setting, the images or a model's start is not the same, some start from none, a
            seed comes twice, or there is one run only.
    """
    check_settings(runs, FREE, "seed and model")
    if len({_start(progress)["from_weights"] for progress in runs.values()}) > 1:
        raise ZooError("some of these runs start from weights and some from none; compare such as do alike.")
    models: dict[tuple[str, tuple[str, ...]], dict[Path, Progress]] = {}
    for run, progress in runs.items():
        models.setdefault((progress.recipe.model, progress.recipe.freeze), {})[run] = progress
    for (model, _), its in models.items():
        check_start(its)
        if len(runs) < 2 or len({progress.recipe.seed for progress in its.values()}) < len(its):
            raise ZooError(f"give two runs or more, those of {model} each with a seed of its own.")


if __name__ == "__main__":
    sys.exit(cli.run(main))
