"""Which images an update sees and how they are warped.

All randomness of an epoch hangs on the seed and its number, so nothing of it has to be stored.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.training.recipe import Recipe


def updates_per_epoch(recipe: Recipe, images: int, processes: int = 1) -> int:
    """Return how many whole batches an epoch has.

    Args:
        recipe: what to run.
        images: images in the data.
        processes: how many share a batch.

    Raises:
        ZooError: the recipe does not fit the data or the processes.
    """
    per_epoch = recipe.images_per_epoch or images
    if per_epoch > images:
        raise ZooError(f"images_per_epoch is {per_epoch}, but the data has only {images} images.")
    if recipe.batch_size > per_epoch:
        raise ZooError(
            f"batch_size {recipe.batch_size} exceeds the {per_epoch} images of an epoch; lower it."
        )
    if recipe.batch_size % processes:
        raise ZooError(
            f"batch_size {recipe.batch_size} cannot be split evenly over {processes} processes; "
            "choose a multiple of their number."
        )
    return per_epoch // recipe.batch_size


def batches(
    recipe: Recipe, epoch: int, images: int, side: int, rank: int = 0, processes: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one process's share of each batch.

    Every process draws whole batches and takes its part, so the number of processes changes nothing.

    Args:
        recipe: what to run.
        epoch: counted from 0.
        images: images in the data.
        side: their side in pixels.
        rank: which process this is.
        processes: how many share a batch.

    Yields:
        (N,), int64, rows of the data, and (N, 2, 3), float32, the maps to warp them by.
    """
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
    order = torch.randperm(images, generator=generator)
    local = recipe.batch_size // processes
    share = slice(rank * local, (rank + 1) * local)
    for update in range(updates_per_epoch(recipe, images, processes)):
        rows = order[update * recipe.batch_size : (update + 1) * recipe.batch_size]
        maps = recipe.augmentation.draw(len(rows), side, generator)
        yield rows[share], maps[share]
