"""Checks that the attention modules share; each raises one sentence that names the value."""

from collections.abc import Collection

from zoo.errors import ZooError


def check_positive(name: str, value: int) -> int:
    """Return ``value``.

    Raises:
        ZooError: it is not a whole number of at least 1.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ZooError(f"{name} must be a whole number of at least 1, not {value!r}.")
    return value


def check_choice(name: str, value: int, choices: Collection[int], meaning: str = "") -> int:
    """Return ``value``; ``meaning`` explains the choices in the error.

    Raises:
        ZooError: it is not one of ``choices``.
    """
    if type(value) is not int or value not in choices:
        known = ", ".join(map(str, choices))
        raise ZooError(f"{name} must be one of {known}{meaning}, not {value!r}.")
    return value


def check_odd(name: str, value: int) -> int:
    """Return ``value``.

    Raises:
        ZooError: it is not a positive odd number, such as a kernel that keeps the size must have.
    """
    if check_positive(name, value) % 2 == 0:
        raise ZooError(f"{name} must be odd, not {value}; {value - 1} and {value + 1} would do.")
    return value


def reduced(channels: int, reduction: int) -> int:
    """Return the width of a bottleneck, ``channels // reduction``.

    Raises:
        ZooError: ``reduction`` is not a positive whole number, or leaves nothing.
    """
    width = channels // check_positive("reduction", reduction)
    if width == 0:
        raise ZooError(
            f"reduction={reduction} leaves nothing of {channels} channels; give at most {channels}."
        )
    return width
