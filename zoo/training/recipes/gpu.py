r"""Training on a GPU: 135 epochs, of which most families of a backbone share all but the last five.

python -m zoo.train --recipe gpu --model resnet18_kw
python -m zoo.train --recipe gpu --model resnet18_kw --resume    # goes on where it was stopped

1. The static twin: 130 epochs in two sizes.
2. A family that cannot hold its kernels, as dpk, takes all but these and trains for 100 epochs, in nine
   tenths of which a batch shares its kernels.
3. The model ends alike with its twin: five epochs.

The whole data set lies on the device and is warped there, in bf16. At its full length it has not been run.
What to expect of resnet18, from a shorter one on an H200 with other trainings beside, whose first run had 30
epochs and not 100 at 32 pixels, of 3 to 4 seconds, in percent of the clean / augmented test images: static
86.7 / 78.3, kwb 86.6 / 78.7, fgk, which holds the kernels only nearly, 86.1 / 77.5, and kw 86.8 clean. The
weights of static, kwb and fgk are from these runs, whose last had the seed 0. dpk had 73.6 % after a second
run of 34 epochs. The logs lie in ``benchmarks/training/logs/``. What ``--mixup`` and ``--cutmix`` would add
was not tried. A first run of another length is a run of its own, and the recipe ends it:

python -m zoo.train --model resnet18_static --phases 24:30 32:30 --upright 0.33 --batch-size 256 --amp bf16 \
    --weight-decay 0.15 --ema-decay 0.998 --run-dir runs/short
python -m zoo.train --recipe gpu --model resnet18_kw --warm-start runs/short/checkpoint.safetensors
"""

from dataclasses import replace

from zoo.catalog import split_name
from zoo.layers import FAMILIES, STATIC
from zoo.training.augment import Augmentation
from zoo.training.recipe import Recipe


def recipe(model: str) -> tuple[Recipe, ...]:
    """Return two or three runs; each has a seed of its own, or its images would come again, warped alike."""
    backbone, family = split_name(model)
    first = Recipe(
        f"{backbone}_{STATIC}" if family in FAMILIES else model,
        phases=((24, 30), (32, 100)),
        seed=0,
        augmentation=Augmentation(upright=0.33),
        batch_size=256,
        weight_decay=0.15,
        ema_decay=0.998,
        amp="bf16",
    )
    end = replace(first, model=model, phases=((32, 5),), lr=1e-3, seed=2, ema_decay=0.996)
    if family not in FAMILIES or FAMILIES[family].holds_static is not None:
        return first, end
    own = replace(first, model=model, phases=((32, 100),), shared_epochs=90, seed=1)
    return first, own, end
