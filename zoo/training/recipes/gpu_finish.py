"""The end of training on a GPU, from a base of the recipe ``gpu``: alike for a family and its twin.

python -m zoo.train --recipe gpu_finish --model resnet18_kw --publish
"""

from zoo.training.augment import Augmentation
from zoo.training.recipe import Recipe
from zoo.training.recipes import cpu


def recipe(model: str) -> Recipe:
    """Return 10 epochs at full size."""
    return Recipe(
        model,
        phases=((32, 10),),
        warm_start=cpu.base(model),
        augmentation=Augmentation(upright=0.33),
        batch_size=256,
        lr=1e-3,
        weight_decay=0.15,
        ema_decay=0.996,
        amp="bf16",
    )
