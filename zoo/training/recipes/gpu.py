"""The long part of training on a GPU: a base that the families are finished from, as in the recipe ``cpu``.

python -m zoo.train --recipe gpu --model resnet18_static --run-dir runs/resnet18_static_base
python -m zoo.train --recipe gpu_finish --model resnet18_kw

The whole data set lies on the device and is warped there, in bf16. At its full length it has not been run.
What to expect of the clean test images, from shorter runs on one H200 with other trainings beside
(``benchmarks/training/logs/``): with ``--phases 24:30 32:30`` resnet18_static had 86.6 % after 60 epochs of 3
to 4 seconds, and 86.1 % ten epochs into the full size already; with ``--phases 32:34 --shared-epochs 30``
resnet18_dpk had 73.6 %. What ``--mixup`` and ``--cutmix`` would add was not tried.
"""

from zoo.catalog import split_name
from zoo.layers import FAMILIES, STATIC
from zoo.training.augment import Augmentation
from zoo.training.recipe import Recipe
from zoo.training.recipes import cpu


def recipe(model: str) -> Recipe:
    """Return 130 epochs in two sizes, or 100 from the twin's base where its kernels cannot be held.

    Raises:
        ZooError: the model is finished from the base of its static twin, so it needs none of its own.
    """
    cpu.check_use(model, "gpu", "gpu_finish")
    backbone, family = split_name(model)
    dynamic = family in FAMILIES
    return Recipe(
        model,
        phases=((32, 100),) if dynamic else ((24, 30), (32, 100)),
        shared_epochs=90 if dynamic else 0,
        seed=int(dynamic),  # with the base's its images would come again, warped alike
        warm_start=cpu.base(f"{backbone}_{STATIC}") if dynamic else None,
        augmentation=Augmentation(upright=0.33),
        batch_size=256,
        weight_decay=0.15,
        ema_decay=0.998,
        amp="bf16",
    )
