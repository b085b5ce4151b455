"""Registering models for a while."""

import contextlib
from collections.abc import Iterator
from typing import Any

import timm.models._registry as timm_registry

from zoo.models import dynamic_kernels


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Put timm's and the zoo's tables of models back as they were, whatever the block registers."""
    tables = [
        value
        for name, value in vars(timm_registry).items()
        if isinstance(value, dict | set) and not name.startswith("__")
    ]
    tables.append(dynamic_kernels.default_cfgs)
    before = [_copy(table) for table in tables]
    names, attributes = list(dynamic_kernels.__all__), set(vars(dynamic_kernels))
    try:
        yield
    finally:
        for table, old in zip(tables, before, strict=True):
            table.clear()
            table.update(old)
        dynamic_kernels.__all__[:] = names
        for name in vars(dynamic_kernels).keys() - attributes:
            delattr(dynamic_kernels, name)


def _copy(table: Any) -> Any:
    """Copy a table and the sets in it, which grow too, but not the functions and configurations."""
    if isinstance(table, set):
        return set(table)
    return {key: set(value) if isinstance(value, set) else value for key, value in table.items()}
