"""Batches whose images are mixed with their neighbours, as torchvision does it."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from zoo.training.recipe import Recipe

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Images (N, C, H, W) and labels (N,), int64, to mixed images and their shares of each class (N, classes)."""


def make_mix(recipe: Recipe, classes: int) -> Mix | None:
    """Return what mixes the batches of a recipe; None where it mixes none.

    MixUp (https://arxiv.org/abs/1710.09412) blends two images, CutMix (https://arxiv.org/abs/1905.04899)
    puts a box of one into the other. Where a recipe has both, each batch has one of them by the toss of a
    coin. All randomness is torch's global generator's. Processes that train together mix each its own share
    of a batch.

    Args:
        recipe: what to run.
        classes: how many there are.
    """
    if not (recipe.mixup or recipe.cutmix):
        return None
    from torchvision.transforms import v2  # slow to import, and most runs need none of it

    made: list[Any] = []
    for kind, alpha in ((v2.MixUp, recipe.mixup), (v2.CutMix, recipe.cutmix)):
        if alpha:
            made.append(kind(alpha=alpha, num_classes=classes))
    return v2.RandomChoice(made)
