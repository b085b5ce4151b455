"""Kernel sizes, strides and paddings as ``nn.Conv2d`` reads them."""

from typing import NamedTuple

from zoo.errors import ZooError


class Geometry(NamedTuple):
    """Where a convolution looks.

    Pairs are (height, width), the padding is (left, right, top, bottom), ``per_group`` are the input channels
    that a kernel sees.
    """

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    padding: tuple[int, int, int, int]
    per_group: int


def as_pair(name: str, value: int | tuple[int, ...], minimum: int) -> tuple[int, int]:
    """Read an int or a pair (height, width) of at least ``minimum``.

    Raises:
        ZooError: not an int or a pair, or too small; ``name`` says which argument.
    """
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or not all(type(number) is int and number >= minimum for number in pair):
        raise ZooError(f"{name} must be an int or a pair of ints of at least {minimum}, not {value!r}.")
    return pair[0], pair[1]


def padding_of(
    padding: int | tuple[int, ...] | str,
    kernel_size: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[int, int, int, int]:
    """Translate ``nn.Conv2d``'s padding to pixels (left, right, top, bottom).

    ``"same"`` puts the odd pixel of an even kernel at the right and the bottom, as ``nn.Conv2d`` does.

    Raises:
        ZooError: an unknown word, ``"same"`` with a stride, or a negative number.
    """
    if isinstance(padding, str):
        if padding == "valid":
            return 0, 0, 0, 0
        if padding != "same":
            raise ZooError(f"padding must be an int, a pair, 'same' or 'valid', not {padding!r}.")
        if stride != (1, 1):
            raise ZooError(f"padding='same' needs stride 1, not {stride}; give the padding in pixels.")
        vertical, horizontal = (d * (k - 1) for d, k in zip(dilation, kernel_size, strict=True))
        return horizontal // 2, horizontal - horizontal // 2, vertical // 2, vertical - vertical // 2
    height, width = as_pair("padding", padding, minimum=0)
    return width, width, height, height
