"""The end of training on two CPU cores, from a base of the recipe ``cpu``.

python -m zoo.train --recipe finish --model resnet18_kw
python -m zoo.train --recipe finish --model resnet18_kw --compile    # faster; not for dyconv

Alike for a family and its twin, but longer for a family that can hold the base's kernels only nearly, as
fgk does. Half of the images are upright, as in the base. What to expect of mobilenetv3_small_100, in percent
of the clean / augmented test images: with ``--warm-start`` from the recipe ``cpu_longer`` static 86.1 / 73.6,
kw 86.3 / 73.7, dyconv 86.2 / 73.7, condconv 86.0 / 73.5, fgk 85.0 / 73.2; dpk, from its own, 82.1 / 68.8.
These are the published weights. From the recipe ``cpu`` alone static and kw had 81.4 and 81.3 % of the clean
images. Another epoch with ``--lr 3e-4`` changed the clean accuracy of an earlier static network, 80.8 %, by
half a point at most (docs/results.md).
"""

from zoo.catalog import split_name
from zoo.layers import FAMILIES
from zoo.training.augment import Augmentation
from zoo.training.recipe import Recipe
from zoo.training.recipes import cpu


def recipe(model: str) -> Recipe:
    """Return 2 epochs at full size, or 8 where the base's kernels are held only nearly."""
    _, family = split_name(model)
    nearly = family in FAMILIES and FAMILIES[family].holds_static == "nearly"
    return Recipe(
        model,
        phases=((32, 8 if nearly else 2),),
        lr=1e-3 if nearly else 5e-4,
        seed=2,  # with one of the bases their images would come again, warped alike
        warm_start=cpu.base(model),
        augmentation=Augmentation(upright=0.5),
    )
