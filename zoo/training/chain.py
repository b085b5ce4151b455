"""Runs one after the other, each from the weights of the one before and in a folder of its own."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from zoo.errors import ZooError
from zoo.training import checkpoint
from zoo.training.recipe import COMPUTED, Recipe


class Run(NamedTuple):
    """A run that is to be trained to its end.

    Attributes:
        recipe: of a run that has begun its own, else the one to begin with.
        folder: of its checkpoint and log.
        epochs: how many of it are done, None where it is yet to begin.
    """

    recipe: Recipe
    folder: Path
    epochs: int | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""
        return self.epochs == len(self.recipe.sizes)

    def __str__(self) -> str:
        """Return what it is and how far it has come."""
        count = len(self.recipe.sizes)
        how = "" if self.epochs is None else f", {self.epochs} of them done"
        return f"{self.recipe.model} in {self.folder}, {count} epoch{'s' * (count > 1)}{how}"


def plan(
    name: str | None, recipes: Sequence[Recipe], folder: Path, resume: bool, given: Collection[str] = ()
) -> list[Run]:
    """Return the runs that are left of a recipe's, and those of it that have begun.

    All but the last lie beside it, as ``MODEL_NAME_NUMBER``, where models that share them find them. One that
    is there makes those before it needless.

    Args:
        name: of the recipe; one that has a single run needs none.
        recipes: of its runs, in order.
        folder: of the last one.
        resume: whether one that is not finished may be gone on with, or the last one, finished or not.
        given: names of settings that were asked for.

    Raises:
        ZooError: a folder holds a run of another recipe, or one that ``resume`` leaves alone.
    """
    runs: list[Run] = []
    for number, recipe in enumerate(recipes, 1):
        last = number == len(recipes)
        place = folder if last else folder.parent / f"{recipe.model}_{name}_{number}"
        if runs:
            recipe = replace(recipe, warm_start=str(runs[-1].folder / checkpoint.FILE))
        if not (place / checkpoint.FILE).exists():
            runs.append(Run(recipe, place))
            continue
        progress = checkpoint.read_progress(place)
        if not resume and (last or not progress.finished):
            raise ZooError(
                f"{place} already holds a run; add --resume to go on with it, or choose another --run-dir."
            )
        # Where it began does not matter, nor how it is computed, unless that was asked for and is to come.
        asked = set(given) if last or not progress.finished else set()
        check_same(place, progress.recipe, recipe, {"warm_start", *COMPUTED} - asked)
        runs = [Run(progress.recipe, place, progress.epoch)]
    return runs


def check_same(folder: Path, own: Recipe, asked: Recipe, ignored: Collection[str] = ()) -> None:
    """Raise a :class:`ZooError` if a run in a folder has other settings than are asked for.

    Args:
        folder: of the run.
        own: its recipe.
        asked: what it should be.
        ignored: names of settings that may differ.
    """
    settings = own.settings()
    for name, value in asked.settings().items():
        if name not in ignored and value != settings[name]:
            raise ZooError(
                f"the run in {folder} has {name} {settings[name]!r}, not {value!r}; "
                "resume with its own settings, or choose a --run-dir in another folder."
            )
