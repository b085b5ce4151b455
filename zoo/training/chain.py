"""Runs one after the other, each from the weights of the one before and in a folder of its own."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zoo.errors import ZooError
from zoo.training import checkpoint
from zoo.training.checkpoint import Progress
from zoo.training.recipe import COMPUTED, Recipe


@dataclass(frozen=True)
class Run:
    """A run among others, or alone.

    Attributes:
        recipe: its own where it has begun, else the one to begin with.
        folder: of its checkpoint and log.
        progress: how far it has come, None where it is yet to begin.
        place: which run it is, such as ``2 of 3``.
    """

    recipe: Recipe
    folder: Path
    progress: Progress | None = None
    place: str = "1 of 1"

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""
        return self.progress is not None and self.progress.finished

    def __str__(self) -> str:
        """Return which it is and how far it has come, as a line."""
        count = len(self.recipe.sizes)
        done = "" if self.progress is None else f", {self.progress.epoch} of them done"
        return (
            f"run {self.place}: {self.recipe.model} in {self.folder}, {count} epoch{'s' * (count > 1)}{done}"
        )


def plan(
    name: str | None, recipes: Sequence[Recipe], folder: Path, resume: bool, given: Collection[str] = ()
) -> list[Run]:
    """Return the runs of a recipe that are left: those to begin, and before them the last one that has begun.

    All but the last lie beside it, as ``MODEL_NAME_NUMBER``, where models that share them find them. Runs to
    begin after one that is not finished compute as that does, unless something else was asked for.

    Args:
        name: of the recipe; one that has a single run needs none.
        recipes: of its runs, in order.
        folder: of the last one.
        resume: whether one that is not finished may be gone on with, or the last one, finished or not.
        given: names of settings that were asked for.

    Raises:
        ZooError: a folder holds a run of another recipe, or one that ``resume`` leaves alone, or the last run
            would lie where another one does.
    """
    beside = folder.resolve().parent
    shared = [beside / f"{recipe.model}_{name}_{number}" for number, recipe in enumerate(recipes[:-1], 1)]
    if folder.resolve() in shared:
        raise ZooError(
            f"{folder} is where the recipe {name} has another of its runs; choose another --run-dir."
        )
    runs: list[Run] = []
    for number, (recipe, place) in enumerate(zip(recipes, [*shared, folder], strict=True), 1):
        if runs:
            recipe = replace(recipe, warm_start=str(runs[-1].folder / checkpoint.FILE))
        runs.append(Run(recipe, place, place=f"{number} of {len(recipes)}"))
    begun = [number for number, run in enumerate(runs) if (run.folder / checkpoint.FILE).exists()]
    if begun:
        runs = runs[begun[-1] :]
        runs[0] = _gone_on_with(runs[0], resume, len(runs) > 1, set(given))
        if not runs[0].finished:
            computed = {each: getattr(runs[0].recipe, each) for each in COMPUTED - set(given)}
            runs[1:] = [replace(run, recipe=replace(run.recipe, **computed)) for run in runs[1:]]
    return runs


def _gone_on_with(run: Run, resume: bool, shared: bool, given: set[str]) -> Run:
    """Return a run as its folder has it; ``shared`` says that others may start from it."""
    progress = checkpoint.read_progress(run.folder)
    other = "a --run-dir in another folder" if shared else "another --run-dir"
    if not (resume or (shared and progress.finished)):
        raise ZooError(f"{run.folder} already holds a run; add --resume to go on with it, or choose {other}.")
    # Where it began does not matter, nor how it is computed, unless that was asked for and is to come.
    asked = set() if shared and progress.finished else given
    check_same(run.folder, progress.recipe, run.recipe, {"warm_start", *COMPUTED} - asked, other)
    return replace(run, recipe=progress.recipe, progress=progress)


def check_same(
    folder: Path,
    own: Recipe,
    asked: Recipe,
    ignored: Collection[str] = (),
    other: str = "another --run-dir",
) -> None:
    """Raise a :class:`ZooError` if a run in a folder has other settings than are asked for.

    Args:
        folder: of the run.
        own: its recipe.
        asked: what it should be.
        ignored: names of settings that may differ.
        other: what to choose instead, in words.
    """
    settings = own.settings()
    for name, value in asked.settings().items():
        if name not in ignored and value != settings[name]:
            raise ZooError(
                f"the run in {folder} has {name} {settings[name]!r}, not {value!r}; "
                f"go on with its own settings, or choose {other}."
            )
