"""The optimizer of a recipe: which parameters it leaves undecayed, and which learn faster than others."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from timm.optim import create_optimizer_v2, list_optimizers, param_groups_weight_decay
from torch import nn

from zoo.errors import ZooError, nearest
from zoo.layers import lr_scales, no_weight_decay
from zoo.training.recipe import Recipe


def make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """Create the recipe's optimizer, with weight decay for those parameters that want it.

    Each group has the ``lr_scale`` of its parameters, which timm's schedulers multiply the rate by.

    Raises:
        ZooError: timm knows no optimizer of that name.
    """
    check_name(recipe.optimizer)
    groups = param_groups_weight_decay(model, recipe.weight_decay, no_weight_decay_list=exempt(model))
    scales, names = lr_scales(model), {parameter: name for name, parameter in model.named_parameters()}
    split: list[dict[str, Any]] = []
    for group in groups:
        by_scale: dict[float, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            by_scale.setdefault(scales.get(names[parameter], 1.0), []).append(parameter)
        split += [{**group, "params": those, "lr_scale": scale} for scale, those in by_scale.items()]
    return create_optimizer_v2(split, recipe.optimizer, lr=recipe.lr)


def check_name(name: str) -> None:
    """Raise a :class:`ZooError` that suggests the nearest names unless timm knows the optimizer ``name``."""
    known = [str(one) for one in list_optimizers()]
    if name.lower() not in known:
        raise ZooError(f"there is no optimizer {name!r}.{nearest(name, known)}")


def exempt(model: nn.Module) -> set[str]:
    """Return the names of the parameters that the model or its layers exempt from weight decay."""
    own: Callable[[], Iterable[str]] = getattr(model, "no_weight_decay", tuple)
    return set(own()) | no_weight_decay(model)
