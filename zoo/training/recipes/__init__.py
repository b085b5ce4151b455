"""Recipes that anyone can repeat: ``python -m zoo.train --recipe NAME --model MODEL``.

One file each, with a function ``recipe(model) -> Recipe``, which may refuse a model with a ZooError.
"""

import importlib
import pkgutil

from zoo.errors import ZooError, nearest
from zoo.training.recipe import Recipe


def names() -> list[str]:
    """Return the names of the recipes."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def named(name: str, model: str) -> Recipe:
    """Return a recipe for a model.

    Raises:
        ZooError: there is no such recipe, or it is not for this model.
    """
    if name not in names():
        raise ZooError(
            f"there is no recipe {name!r}; there are {', '.join(names())}.{nearest(name, names())}"
        )
    return importlib.import_module(f"{__name__}.{name}").recipe(model)
