"""The long part of training on two CPU cores: a base that the families are finished from.

python -m zoo.train --recipe cpu --model resnet18_static --run-dir runs/resnet18_static_base
python -m zoo.train --resume --run-dir runs/resnet18_static_base
python -m zoo.train --recipe finish --model resnet18_kw

Small images make the early epochs cheap. A family that can hold static kernels needs no base but its twin's.
One that cannot has a base of its own: it takes all but the kernels from its twin's, and lets 16 images share
theirs at first, so that they are made once and not for every image.

Half of the images are upright, because the warps blur all others and the clean ones would be news to the
network: finished for four epochs with that share, mobilenetv3_small_100_static had 79 % of the clean test
images, without it 71 % (docs/results.md, from one base).

What to expect: mobilenetv3_small_100_static has 81.4 % of the clean test images after these 42 epochs, in
2.7 hours on one thread of an AMD EPYC (Zen 5) beside other work; mobilenetv3_small_100_dpk 82.1 % after its
58 from there, in 2.4 hours on two threads (torchrun with two processes). Their logs lie in
``benchmarks/training/logs/``. The other figures are of several runs one after the other
(weights/manifest.json and earlier ones): resnet18_static had 80 to 82 % after 36 epochs, resnet18_dpk, two
fifths of its images smaller, 77 % after 110.

``--amp bf16`` can pay where the processor multiplies bf16 (AVX512-BF16 or AMX): docs/performance.md has it
for resnet18, where all but fgk of the families measured gain.
"""

from dataclasses import replace

from zoo.catalog import split_name
from zoo.errors import ZooError
from zoo.layers import FAMILIES, STATIC
from zoo.training.augment import Augmentation
from zoo.training.recipe import Recipe


def recipe(model: str) -> Recipe:
    """Return 42 epochs in three sizes, or 58 from the twin's base where its kernels cannot be held.

    Raises:
        ZooError: the model is finished from the base of its static twin, so it needs none of its own.
    """
    check_use(model, "cpu", "finish")
    backbone, family = split_name(model)
    if family in FAMILIES:
        return replace(onward(model, f"{backbone}_{STATIC}"), shared_epochs=56, shared_images=16)
    return Recipe(model, phases=((16, 12), (24, 9), (32, 21)), augmentation=Augmentation(upright=0.5))


def onward(model: str, start: str) -> Recipe:
    """Return 58 epochs from the base of a model, itself or its twin."""
    return Recipe(
        model,
        phases=((24, 10), (32, 48)),
        lr=1.5e-3,
        seed=1,  # with the base's its images would come again, warped alike
        warm_start=base(start),
        augmentation=Augmentation(upright=0.5),
    )


def check_use(model: str, own: str, end: str, run_dir: str = "runs/{twin}_base") -> None:
    """Raise a :class:`ZooError` for a model that is finished from the base of its static twin.

    Args:
        model: its name.
        own: the recipe that would make a base.
        end: the recipe that finishes from one.
        run_dir: of the base that is made instead.
    """
    backbone, family = split_name(model)
    if _shares_base(family):
        twin = f"{backbone}_{STATIC}"
        raise ZooError(
            f"the recipe {end} starts {model} from the base of its static twin {twin}, not from its own; "
            f"run python -m zoo.train --recipe {own} --model {twin} "
            f"--run-dir {run_dir.format(twin=twin)} instead."
        )


def base(model: str) -> str:
    """Return where the recipes expect the checkpoint of the base that a model is finished from."""
    backbone, family = split_name(model)
    if _shares_base(family):
        model = f"{backbone}_{STATIC}"
    return f"runs/{model}_base/checkpoint.safetensors"


def _shares_base(family: str) -> bool:
    """Tell whether a family starts from static kernels, exactly or nearly, and so from its twin's base."""
    return family in FAMILIES and FAMILIES[family].holds_static is not None
