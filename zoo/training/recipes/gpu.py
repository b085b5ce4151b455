"""The long part of training on a GPU: a base that the families are finished from, as in the recipe ``cpu``.

python -m zoo.train --recipe gpu --model resnet18_static --run-dir runs/resnet18_static_base
python -m zoo.train --recipe gpu_finish --model resnet18_kw --publish

The whole data set lies on the device and is warped there, in bf16.
"""

import dataclasses

from zoo.training.augment import Augmentation
from zoo.training.recipe import Recipe
from zoo.training.recipes import cpu


def recipe(model: str) -> Recipe:
    """Return 70 epochs in two sizes, or 40 from the twin's base where its kernels cannot be held.

    Raises:
        ZooError: the model is finished from the base of its static twin, so it needs none of its own.
    """
    small = cpu.recipe(model)
    own = small.warm_start is not None
    return dataclasses.replace(
        small,
        phases=((32, 40),) if own else ((24, 30), (32, 40)),
        shared_epochs=32 if own else 0,
        augmentation=Augmentation(upright=0.33),
        batch_size=256,
        weight_decay=0.15,
        ema_decay=0.998,
        amp="bf16",
    )
