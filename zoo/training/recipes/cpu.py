"""Days on two CPU cores, in parts: a stopped run goes on with --resume.

python -m zoo.train --recipe cpu --model resnet18_static --publish
python -m zoo.train --recipe cpu --model resnet18_kw --publish
python -m zoo.train --resume --run-dir runs/resnet18_kw --publish

Small images make the early epochs cheap. A family that can start as a static convolution, if only nearly,
starts from the published weights of its static twin, and so needs the late epochs alone. What it reaches is
not known: no run of it has been published yet. The weights in the manifest say how each was made.
"""

from zoo.catalog import split_name
from zoo.layers import FAMILIES, STATIC, DynamicConv2d
from zoo.pretrained import manifest_entry, weights_dir
from zoo.training.recipe import Recipe


def recipe(model: str) -> Recipe:
    """Return 32 epochs in three sizes, or 10 at full size from the weights of the static twin."""
    backbone, family = split_name(model)
    twin = manifest_entry(f"{backbone}_{STATIC}")
    if family in FAMILIES and twin is not None and starts_static(FAMILIES[family]):
        start = str(weights_dir() / twin["file"])
        return Recipe(model, phases=((24, 5), (32, 5)), mild_epochs=3, lr=1e-3, warm_start=start)
    return Recipe(model, phases=((16, 16), (24, 8), (32, 8)), mild_epochs=3)


def starts_static(family: type[DynamicConv2d]) -> bool:
    """Tell whether a family's layers can begin as a static convolution, if only nearly."""
    return family.warm_start_ is not DynamicConv2d.warm_start_
