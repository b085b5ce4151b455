"""The registry: backbones crossed with what is made of them, the arguments they take and what they refuse."""

import subprocess
import sys
import warnings

import pytest
import timm
import torch
from torch import nn

import zoo
from tests.models.registry import MODELS, create, every_model, images, name_of, parts, small_models
from zoo.errors import ZooError
from zoo.layers import FAMILIES, STATIC, DynamicConv2d
from zoo.models import BACKBONES, is_spatial, register

backbones = pytest.mark.parametrize("backbone", BACKBONES)


def dynamic_names(model: nn.Module) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, DynamicConv2d)}


def test_the_table_makes_the_names() -> None:
    crossed = {f"{backbone}_{family}" for backbone in BACKBONES for family in (STATIC, *FAMILIES)}
    assert crossed <= set(MODELS)
    assert set(timm.list_models("*_dpk")) == {f"{backbone}_dpk" for backbone in BACKBONES}
    assert sorted(timm.list_models(module="dynamic_kernels")) == sorted(MODELS)


@every_model
def test_a_family_takes_every_spatial_convolution_but_the_stem(model: nn.Module) -> None:
    backbone, made = parts(name_of(model))
    twin = timm.create_model(f"{backbone}_{STATIC}")
    spatial = {
        name for name, conv in twin.named_modules() if isinstance(conv, nn.Conv2d) and is_spatial(conv)
    }
    stem = BACKBONES[backbone].first_conv
    assert stem in spatial
    assert dynamic_names(model) == (spatial - {stem} if made in FAMILIES else set())


@backbones
def test_the_stem_of_imagenet_is_timms(backbone: str) -> None:
    row = BACKBONES[backbone]
    ours = create(f"{backbone}_{STATIC}", stem="imagenet")
    theirs = row.build(**row.args, num_classes=10).eval()
    theirs.load_state_dict(ours.state_dict())
    x = images(size=(64, 64))
    torch.testing.assert_close(ours(x), theirs(x))
    assert [info["reduction"] for info in ours.feature_info] == [2, 4, 8, 16, 32]


@backbones
def test_the_stem_of_cifar_leaves_out_two_steps_and_no_weights(backbone: str) -> None:
    def seeded(**arguments: str) -> nn.Module:
        torch.manual_seed(0)
        return timm.create_model(f"{backbone}_{STATIC}", **arguments)

    def first_steps(model: nn.Module) -> list[tuple[int, ...]]:
        info = model.eval().feature_info[:2]
        maps = model.forward_intermediates(images(), indices=2 - len(model.feature_info), intermediates_only=True)
        return [tuple(feature.shape) for feature in maps] + [tuple(info[0])]

    small, large = seeded(), seeded(stem="imagenet")
    first = f"{BACKBONES[backbone].first_conv}.weight"
    wanted = large.state_dict()
    assert small.state_dict().keys() == wanted.keys()
    for key, value in small.state_dict().items():
        if key != first:  # that of a ResNet is of another size
            assert value.shape == wanted[key].shape
    assert first_steps(small) != first_steps(large)
