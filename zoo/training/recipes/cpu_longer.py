"""More of a base of the recipe ``cpu``, so that all families of a backbone train for as long.

python -m zoo.train --recipe cpu_longer --model resnet18_static --run-dir runs/longer
python -m zoo.train --recipe finish --model resnet18_kw --warm-start runs/longer/checkpoint.safetensors

A family that cannot hold the base's kernels trains for 58 epochs from there (the recipe ``cpu``); so this
does, with kernels as they are. What to expect: mobilenetv3_small_100_static has 86.1 % of the clean test
images after it, in 1.3 hours on two threads of an AMD EPYC (Zen 5, torchrun with two processes) beside light
work.
"""

from zoo.catalog import split_name
from zoo.errors import ZooError
from zoo.layers import FAMILIES
from zoo.training.recipe import Recipe
from zoo.training.recipes import cpu


def recipe(model: str) -> Recipe:
    """Return 58 epochs from the model's base.

    Raises:
        ZooError: the model is finished from the base of its static twin, or its own is as long already.
    """
    cpu.check_use(model, "cpu_longer", "finish", run_dir="runs/longer")
    if split_name(model)[1] in FAMILIES:
        raise ZooError(f"the base that the recipe cpu gives {model} is as long already; finish from that.")
    return cpu.onward(model, model)
