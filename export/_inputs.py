"""What a model takes and gives, found out before anything is exported."""

from pathlib import Path

import numpy as np
from torch import nn

from export._metadata import name_of
from export.base import ExportOptions, Predict, first_line
from zoo.errors import ZooError

REAL_IMAGES = 256


def input_size(model: nn.Module, options: ExportOptions) -> tuple[int, int, int]:
    """Return the size that ``options`` ask for, or else the model's own.

    Raises:
        ZooError: neither says one.
    """
    config = getattr(model, "pretrained_cfg", None) or {}
    size = options.input_size or config.get("input_size")
    if size is None:
        cure = "give input_size=(channels, height, width)"
        raise ZooError(f"{name_of(model)} does not say its input size; {cure}.")
    channels, height, width = size
    return channels, height, width


def real_images(folder: Path, side: int) -> np.ndarray:
    """Return the first :data:`REAL_IMAGES` test images of a CIFAR-10 parquet folder, normalised, ``side`` px.

    Raises:
        ZooError: the folder holds no such data, or memory cannot hold the images.
    """
    from zoo.training.augment import normalise
    from zoo.training.data import load_cifar10

    pixels = load_cifar10("test", folder).images[:REAL_IMAGES]
    try:
        return normalise(pixels, side).numpy()
    except (MemoryError, RuntimeError) as error:
        raise ZooError(
            f"{len(pixels)} images of {side} x {side} pixels do not fit in memory; give a smaller size."
        ) from error


def count_outputs(expected: Predict, name: str, size: tuple[int, int, int]) -> int:
    """Run one input through the eager model: what it cannot take, no artifact of it can.

    Raises:
        ZooError: the model cannot take the size, or is no classifier of images.
    """
    try:
        logits = expected(np.zeros((1, *size), np.float32))
    except (MemoryError, RuntimeError, ValueError) as error:
        shape = "x".join(map(str, size))
        raise ZooError(
            f"{name} cannot take inputs of {shape} ({first_line(error)}); give another size."
        ) from error
    except (AttributeError, TypeError) as error:
        what = "must map one tensor (N, C, H, W) to one tensor (N, classes)"
        raise ZooError(f"{name} {what}: {first_line(error)}.") from error
    return logits.shape[-1]


def check_images(images: np.ndarray, size: tuple[int, int, int]) -> None:
    """Refuse real images that the model cannot take.

    Raises:
        ZooError: their type or shape is another, or there are none.
    """
    if images.dtype != np.float32 or images.shape[1:] != size or not len(images):
        raise ZooError(
            f"images of shape {images.shape}, {images.dtype}, do not fit the model; "
            f"give normalised float32 images of shape (N, {', '.join(map(str, size))})."
        )
