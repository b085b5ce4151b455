"""Training on two CPU cores: 102 epochs, of which most families of a backbone share the first hundred.

python -m zoo.train --recipe cpu --model mobilenetv3_small_100_kw
python -m zoo.train --recipe cpu --model mobilenetv3_small_100_kw --resume    # goes on where it was stopped
torchrun --nproc-per-node 2 -m zoo.train --recipe cpu --model mobilenetv3_small_100_kw --threads 1

1. The static twin: 42 epochs in three sizes, as small images make the early epochs cheap.
2. It goes on for 58 epochs. A family that cannot hold its kernels, as dpk, does so in its place: it takes all
   but the kernels from it, and lets 16 images share theirs in all but the last two epochs, so that they are
   made once and not for every image.
3. The model ends alike with its twin: two epochs, or eight where it holds the kernels only nearly, as fgk.

Half of the images are upright, because the warps blur all others and the clean ones would be news to the
network: finished for four epochs with that share, mobilenetv3_small_100_static had 79 % of the clean test
images, without it 71 % (docs/results.md, from one base).

What to expect of mobilenetv3_small_100 and the JPEG copy of CIFAR-10 (docs/results.md), in percent of the
clean / augmented test images; other backbones were not trained by it: static 86.1 / 73.6,
kw 86.3 / 73.7, dyconv 86.2 / 73.7, condconv 86.0 / 73.5, fgk 85.0 / 73.2, dpk 82.1 / 68.8. These are the
published weights, whose runs were started one by one on an AMD EPYC (Zen 5) beside other work: the first on
one thread in 2.7 hours, after which static had 81 % of the clean images; the second as two processes in 1.3,
of dpk in 2.4; the third, but for dpk's, on one thread. Their logs lie in ``benchmarks/training/logs/``.

``--amp bf16`` can pay where the processor multiplies bf16 (AVX512-BF16 or AMX): docs/performance.md has it
for resnet18, where all but fgk of the families measured gain. ``--compile`` does not go with dyconv.
"""

from dataclasses import replace

from zoo.catalog import split_name
from zoo.layers import FAMILIES, STATIC
from zoo.training.augment import Augmentation
from zoo.training.recipe import Recipe


def recipe(model: str) -> tuple[Recipe, ...]:
    """Return three runs; each has a seed of its own, or its images would come again, warped alike."""
    backbone, family = split_name(model)
    holds = FAMILIES[family].holds_static if family in FAMILIES else "exactly"
    shared = f"{backbone}_{STATIC}" if family in FAMILIES else model
    images = Augmentation(upright=0.5)
    first = Recipe(shared, phases=((16, 12), (24, 9), (32, 21)), seed=0, augmentation=images)
    onward = Recipe(shared, phases=((24, 10), (32, 48)), lr=1.5e-3, seed=1, augmentation=images)
    end = Recipe(model, phases=((32, 2),), lr=5e-4, seed=2, augmentation=images)
    if holds is None:
        onward = replace(onward, model=model, shared_epochs=56, shared_images=16)
    elif holds == "nearly":
        end = replace(end, phases=((32, 8),), lr=1e-3)
    return first, onward, end
