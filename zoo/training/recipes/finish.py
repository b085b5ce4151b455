"""The end of training on two CPU cores, from a base of the recipe ``cpu``: alike for a family and its twin.

python -m zoo.train --recipe finish --model resnet18_kw --publish
python -m zoo.train --recipe finish --model resnet18_kw --compile --publish    # faster

Half of the images are upright here: the base has seen none as sharp as they are. From a base of 28 epochs,
mobilenetv3_small_100_static gets to 68 % of the clean test images.
"""

from zoo.training.augment import Augmentation
from zoo.training.recipe import Recipe
from zoo.training.recipes import cpu


def recipe(model: str) -> Recipe:
    """Return 4 epochs at full size."""
    upright = Augmentation(upright=0.5)
    return Recipe(model, phases=((32, 4),), lr=1e-3, warm_start=cpu.base(model), augmentation=upright)
