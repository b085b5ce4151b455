"""Packages that only training needs, imported when they are used."""

import importlib
from types import ModuleType

from zoo.errors import ZooError


def require(module: str) -> ModuleType:
    """Import and return ``module``, a package of the ``train`` extra.

    Raises:
        ZooError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ZooError(
            f"training and evaluation need the package {error.name}; "
            "install it from the checkout: pip install '.[train]'."
        ) from None
