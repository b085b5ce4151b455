"""The registered models as parameters of tests, and models with weights that leave nothing without effect."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import nn

import zoo
from zoo.layers import FAMILIES, STATIC
from zoo.layers.attention import ATTENTION
from zoo.models import BACKBONES

MODELS = zoo.list_models()
#: Backbones that repeat the blocks of a smaller one.
DEEP = ("resnet34", "resnet50", "efficientnet_b0")
#: The smallest backbone of each kind of block.
SMALL = ("resnet10", "mobilenetv3_small_100")


def parts(name: str) -> tuple[str, str]:
    """Split a model's name into its backbone, the longest that fits, and what was made of it."""
    backbone = max((one for one in BACKBONES if name.startswith(f"{one}_")), key=len)
    return backbone, name.removeprefix(f"{backbone}_")


def _is_first_of_its_kind(name: str) -> bool:
    made = parts(name)[1]
    return made not in (STATIC, *FAMILIES) and name == next(one for one in MODELS if parts(one)[1] == made)


def _stands_for_others(name: str) -> bool:
    """Tell whether a model has code of its own: a row of a table that no model before it has.

    The rest is two rows that were met apart, as in resnet34_fgk. A backbone is met with its first dynamic
    family, an attention module with its first backbone, and a place in a backbone with its first module.
    """
    backbone, made = parts(name)
    if made in (STATIC, *FAMILIES):
        return backbone in SMALL or made == next(iter(FAMILIES))
    place = ATTENTION[made].place
    first = next(row for row, other in ATTENTION.items() if other.place == place)
    return made == first or _is_first_of_its_kind(name)


def _models(quick: Callable[[str], bool], among: Callable[[str], bool]) -> pytest.MarkDecorator:
    """Return the parameters of the fixture ``model``; the scope makes pytest run a model's tests together."""
    names = [name for name in MODELS if among(name)]
    marked = [pytest.param(name, marks=() if quick(name) else pytest.mark.slow) for name in names]
    return pytest.mark.parametrize("model", marked, ids=names, indirect=True, scope="session")


def _is_small(name: str) -> bool:
    return parts(name)[0] in SMALL


def _is_typical(name: str) -> bool:
    return _is_small(name) or _is_first_of_its_kind(name)


# What every model must pass. Quick are
#: all but the deep ones;
every_model = _models(lambda name: parts(name)[0] not in DEEP, among=lambda name: True)
#: where it takes longer, the small backbones with each family, and the first backbone with anything else.
every_model_slowly = _models(_is_typical, among=lambda name: True)

# What follows from code that models share, for those that stand for the others. Quick are
#: all that are in every_model_slowly;
typical_models = _models(_is_typical, among=_stands_for_others)
#: where it takes longer, the small backbones;
small_models = _models(_is_small, among=_stands_for_others)
#: none.
slow_models = _models(lambda name: False, among=_stands_for_others)


def name_of(model: nn.Module) -> str:
    """Return the name a model was created by."""
    return model.default_cfg["architecture"]


def images(batch: int = 2, channels: int = 3, size: tuple[int, int] = (32, 32)) -> torch.Tensor:
    """Return random images (batch, channels, height, width)."""
    return torch.randn(batch, channels, *size)


@torch.no_grad()
def create(name: str, **kwargs: Any) -> nn.Module:
    """Create a model as ``timm.create_model`` does, in eval mode, with nothing in it without effect.

    timm starts a ResNet's blocks as identities, some modules start by multiplying what they add by zero, and
    with statistics that were never measured the image's trace fades; comparing two runs of such a network
    would say little. So every parameter is moved off its start, and the statistics are measured.
    """
    model = timm.create_model(name, **kwargs)
    for parameter in model.parameters():
        size = parameter.square().mean().sqrt().clamp(min=0.1)
        parameter.add_(0.1 * size * torch.randn_like(parameter))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.3, 0.8)
        norm.momentum = 1.0
    model.train()(images(4))
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


def again(source: nn.Module, **kwargs: Any) -> nn.Module:
    """Create a model anew with the weights of ``source``, taken as pretrained ones are, in eval mode."""
    overlay = {"state_dict": dict(source.state_dict())}
    return timm.create_model(
        name_of(source), pretrained=True, pretrained_cfg_overlay=overlay, **kwargs
    ).eval()
