"""The end of training on two CPU cores, from a base of the recipe ``cpu``: alike for a family and its twin.

python -m zoo.train --recipe finish --model resnet18_kw --publish
python -m zoo.train --recipe finish --model resnet18_kw --compile --publish    # faster

Half of the images are upright, as in the base. The weights of mobilenetv3_small_100, but those of dpk and
dyconv, had two epochs of it (``--phases 32:2 --lr 5e-4``) from a base of 50 epochs: static has 79.5 % of the
clean test images, fgk, which can hold the base's kernels only nearly, 75.8 %.
"""

from zoo.training.augment import Augmentation
from zoo.training.recipe import Recipe
from zoo.training.recipes import cpu


def recipe(model: str) -> Recipe:
    """Return 4 epochs at full size."""
    upright = Augmentation(upright=0.5)
    return Recipe(model, phases=((32, 4),), lr=1e-3, warm_start=cpu.base(model), augmentation=upright)
