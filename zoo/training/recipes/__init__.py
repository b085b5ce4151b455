"""Recipes that anyone can repeat with one command: ``python -m zoo.train --recipe NAME --model MODEL``.

One file each, with a function ``recipe(model)`` that returns the runs from nothing to the trained model, each
of which goes on from the weights of the one before. Families that can hold their twin's kernels share its
runs, and a run that is done is not trained again.
"""

import importlib
import pkgutil

from zoo.errors import ZooError, nearest
from zoo.training.recipe import Recipe


def names() -> list[str]:
    """Return the names of the recipes."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def named(name: str, model: str) -> tuple[Recipe, ...]:
    """Return the runs of a recipe in their order, the model's own at the end.

    Raises:
        ZooError: there is no such recipe.
    """
    if name not in names():
        raise ZooError(
            f"there is no recipe {name!r}; there are {', '.join(names())}.{nearest(name, names())}"
        )
    return importlib.import_module(f"{__name__}.{name}").recipe(model)
