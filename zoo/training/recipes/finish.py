"""The end of training on two CPU cores, from a base of the recipe ``cpu``.

python -m zoo.train --recipe finish --model resnet18_kw
python -m zoo.train --recipe finish --model resnet18_kw --compile    # faster; not for dyconv

Alike for a family and its twin, but longer for a family that can hold the base's kernels only nearly, as
fgk does. Half of the images are upright, as in the base. What to expect: from the recipe's own bases
mobilenetv3_small_100_static has 81.4 % of the clean and 65.1 % of the augmented test images, kw 81.3 % of
the clean ones, dpk 82.1 and 68.8 %, which are the published weights. Those of the other models are from it
with ``--phases 32:1 --lr 1e-3`` and from a base of 64 epochs: static, kw, condconv and dyconv have 80.6 to
80.9 % of the clean images and 67.4 to 67.5 % of the augmented ones. fgk had 77.3 % after such an epoch and
80.5 % after seven more (``--phases 32:7 --lr 1e-3`` from there); its eight in one run are not measured.
Another epoch with ``--lr 3e-4`` changes static's clean accuracy by half a point at most (docs/results.md).
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
