"""The end of training on a GPU, from a base of the recipe ``gpu``: alike for a family and its twin.

python -m zoo.train --recipe gpu_finish --model resnet18_kw

What to expect of the clean test images: 86.6 to 86.8 % of resnet18_static, kw and kwb; of fgk, which can
hold the base's kernels only nearly, 86.1 %. Their logs lie in ``benchmarks/training/logs/``; the weights
of static, kwb and fgk are from these runs, which had the seed 0.
"""

from zoo.training.augment import Augmentation
from zoo.training.recipe import Recipe
from zoo.training.recipes import cpu


def recipe(model: str) -> Recipe:
    """Return 5 epochs at full size."""
    return Recipe(
        model,
        phases=((32, 5),),
        seed=2,  # with one of the bases their images would come again, warped alike
        warm_start=cpu.base(model),
        augmentation=Augmentation(upright=0.33),
        batch_size=256,
        lr=1e-3,
        weight_decay=0.15,
        ema_decay=0.996,
        amp="bf16",
    )
