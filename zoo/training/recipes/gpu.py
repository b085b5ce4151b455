"""Full length on a GPU.

python -m zoo.train --recipe gpu --model resnet18_dpk --publish

The whole data set lies on the device and is warped there, in bf16. What it reaches is not known: no run of it
has been published yet. The weights in the manifest say which recipe made them.
"""

from zoo.training.augment import Augmentation
from zoo.training.recipe import Recipe


def recipe(model: str) -> Recipe:
    """Return 150 epochs at full size, a quarter of the images upright."""
    return Recipe(
        model,
        phases=((32, 150),),
        augmentation=Augmentation(upright=0.25),
        batch_size=256,
        lr=3e-3,
        ema_decay=0.9995,
        amp="bf16",
    )
