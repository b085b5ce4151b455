"""Feature maps of every model, by each of timm's ways: after timm's tests/test_models.py."""

import copy
from collections.abc import Mapping

import pytest
import timm
import torch
from timm.models import FeatureListNet
from torch import nn

from tests.models.registry import (
    again,
    every_model,
    every_model_slowly,
    images,
    name_of,
    small_models,
    typical_models,
)

#: timm's feature extractors, each with indices to ask it for.
WAYS = {
    "list": (0, 1, 2, 3, 4),
    "dict": (1, 3),
    "hook": (-2, -1),
    "fx": (0, 2, 4),
    "getter": (1, -1),
}


def maps_of(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Return a feature extractor's maps in order, whatever it returns them in."""
    found = model(x)
    return list(found.values()) if isinstance(found, Mapping) else list(found)


def assert_equal(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> None:
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


@every_model
@torch.no_grad()
def test_features_only(model: nn.Module) -> None:
    extractor = timm.create_model(name_of(model), features_only=True).eval()
    assert isinstance(extractor, FeatureListNet)
    info = extractor.feature_info
    assert info.reduction() == [1, 1, 2, 4, 8]
    maps = extractor(images())
    for feature, channels, reduction in zip(maps, info.channels(), info.reduction(), strict=True):
        assert feature.shape == (2, channels, 32 // reduction, 32 // reduction)
        assert feature.isfinite().all()


@every_model_slowly
@torch.no_grad()
def test_out_indices(model: nn.Module) -> None:
    x = images()
    extractor = again(model, features_only=True, out_indices=(1, 3))
    assert extractor.feature_info.reduction() == [1, 4]
    assert_equal(extractor(x), model.forward_intermediates(x, indices=[1, 3], intermediates_only=True))


@small_models
@torch.no_grad()
def test_every_extractor_finds_the_same_maps_in_pretrained_weights(model: nn.Module) -> None:
    x = images()
    every = model.forward_intermediates(x, intermediates_only=True)
    for kind, indices in WAYS.items():
        extractor = again(model, features_only=True, feature_cls=kind, out_indices=indices)
        wanted = [every[index] for index in indices]
        assert_equal(maps_of(extractor, x), wanted)
        assert extractor.feature_info.channels() == [feature.shape[1] for feature in wanted]


@every_model_slowly
@torch.no_grad()
def test_forward_intermediates(model: nn.Module) -> None:
    x = images()
    final, every = model.forward_intermediates(x)
    assert torch.equal(final, model.forward_features(x))
    assert [feature.shape[1] for feature in every] == [info["num_chs"] for info in model.feature_info]
    reductions = [32 // feature.shape[-1] for feature in every]
    assert reductions == [info["reduction"] for info in model.feature_info]
    assert_equal(model.forward_intermediates(x, norm=True)[1], every)
    for indices, wanted in ((2, every[-2:]), ([0, 2], [every[0], every[2]]), ([-1], every[-1:])):
        final_again, found = model.forward_intermediates(x, indices=indices)
        assert torch.equal(final_again, final)
        assert_equal(found, wanted)


@typical_models
@torch.no_grad()
def test_stopping_early_skips_the_later_stages(model: nn.Module) -> None:
    runs: list[nn.Module] = []
    last = model.get_submodule(model.feature_info[-1]["module"])
    hook = last.register_forward_hook(lambda module, *_: runs.append(module))
    x = images()
    early = model.forward_intermediates(x, indices=[1], stop_early=True, intermediates_only=True)
    assert not runs
    late = model.forward_intermediates(x, indices=[1], intermediates_only=True)
    assert runs == [last]
    assert_equal(early, late)
    hook.remove()


@typical_models
@torch.no_grad()
def test_prune_intermediate_layers(model: nn.Module) -> None:
    x = images()
    wanted = model.forward_intermediates(x, indices=[1, 2], intermediates_only=True)
    pruned = copy.deepcopy(model)
    assert pruned.prune_intermediate_layers([1, 2]) == [1, 2]
    left = sum(parameter.numel() for parameter in pruned.parameters())
    assert left < sum(parameter.numel() for parameter in model.parameters()) / 2
    assert_equal(pruned.forward_intermediates(x, indices=[1, 2], intermediates_only=True), wanted)


@pytest.mark.parametrize("name", ["resnet10_kw", "mobilenetv3_small_100_kw"])
def test_features_of_other_channels(name: str) -> None:
    extractor = timm.create_model(name, features_only=True, in_chans=4).eval()
    assert [feature.shape[-1] for feature in extractor(images(channels=4))] == [32, 32, 16, 8, 4]
