"""The optimizer of a recipe, and which parameters it leaves undecayed."""

from collections.abc import Callable, Iterable

import torch
from timm.optim import create_optimizer_v2, list_optimizers, param_groups_weight_decay
from torch import nn

from zoo.errors import ZooError, nearest
from zoo.layers import no_weight_decay
from zoo.training.recipe import Recipe


def make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """Create the recipe's optimizer, with weight decay for those parameters that want it.

    Raises:
        ZooError: timm knows no optimizer of that name.
    """
    check_name(recipe.optimizer)
    groups = param_groups_weight_decay(model, recipe.weight_decay, no_weight_decay_list=exempt(model))
    return create_optimizer_v2(groups, recipe.optimizer, lr=recipe.lr)


def check_name(name: str) -> None:
    """Raise a :class:`ZooError` that suggests the nearest names unless timm knows the optimizer ``name``."""
    known = [str(one) for one in list_optimizers()]
    if name.lower() not in known:
        raise ZooError(f"there is no optimizer {name!r}.{nearest(name, known)}")


def exempt(model: nn.Module) -> set[str]:
    """Return the names of the parameters that the model or its layers exempt from weight decay."""
    own: Callable[[], Iterable[str]] = getattr(model, "no_weight_decay", tuple)
    return set(own()) | no_weight_decay(model)
