"""Feature maps of every model, by each of timm's ways: after timm's tests/test_models.py."""

from collections.abc import Mapping

import pytest
import timm
import torch
from timm.models import FeatureListNet
from torch import nn

from tests.models.registry import create, every_model, images, loaded, thorough

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
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


@every_model
def test_features_only(name: str) -> None:
    model = timm.create_model(name, features_only=True).eval()
    assert isinstance(model, FeatureListNet)
    reductions = model.feature_info.reduction()
    assert reductions == [1, 1, 2, 4, 8]
    with torch.no_grad():
        maps = model(images())
    for feature, channels, reduction in zip(maps, model.feature_info.channels(), reductions, strict=True):
        assert feature.shape == (2, channels, 32 // reduction, 32 // reduction)
        assert feature.isfinite().all()


@thorough
def test_every_extractor_finds_the_same_maps_in_pretrained_weights(name: str) -> None:
    source = create(name)
    x = images()
    with torch.no_grad():
        wanted = source.forward_intermediates(x, intermediates_only=True)
        for kind, indices in WAYS.items():
            model = loaded(name, source, features_only=True, feature_cls=kind, out_indices=indices)
            assert_equal(maps_of(model, x), [wanted[index] for index in indices])
            assert model.feature_info.channels() == [wanted[index].shape[1] for index in indices]


@thorough
def test_forward_intermediates(name: str) -> None:
    model = create(name)
    x = images()
    with torch.no_grad():
        final, every = model.forward_intermediates(x)
        assert torch.equal(final, model.forward_features(x))
        assert [feature.shape[1] for feature in every] == [info["num_chs"] for info in model.feature_info]
        assert [32 // feature.shape[-1] for feature in every] == [
            info["reduction"] for info in model.feature_info
        ]
        assert_equal(model.forward_intermediates(x, norm=True)[1], every)
        for indices, chosen in ((2, every[-2:]), ([0, 2], [every[0], every[2]]), ([-1], every[-1:])):
            final_again, found = model.forward_intermediates(x, indices=indices)
            assert torch.equal(final_again, final)
            assert_equal(found, chosen)
        early = model.forward_intermediates(x, indices=[1], stop_early=True, intermediates_only=True)
        assert_equal(early, [every[1]])


@thorough
def test_stopping_early_skips_the_later_stages(name: str) -> None:
    model = create(name)
    last = model.get_submodule(model.feature_info[-1]["module"])
    runs: list[nn.Module] = []
    last.register_forward_hook(lambda module, *_: runs.append(module))
    x = images()
    model.forward_intermediates(x, indices=[1], stop_early=True, intermediates_only=True)
    assert not runs
    model.forward_intermediates(x, indices=[1], intermediates_only=True)
    assert runs == [last]


@thorough
def test_prune_intermediate_layers(name: str) -> None:
    model = create(name)
    x = images()
    with torch.no_grad():
        wanted = model.forward_intermediates(x, indices=[1, 2], intermediates_only=True)
        before = sum(parameter.numel() for parameter in model.parameters())
        assert model.prune_intermediate_layers([1, 2]) == [1, 2]
        assert sum(parameter.numel() for parameter in model.parameters()) < before / 2
        assert_equal(model.forward_intermediates(x, indices=[1, 2], intermediates_only=True), wanted)
        assert model.get_classifier() is None or isinstance(model.get_classifier(), nn.Identity)


@pytest.mark.parametrize("kind", ["list", "getter"])
def test_features_take_other_channels(kind: str) -> None:
    for name in ("resnet10_kw", "mobilenetv3_small_100_kw"):
        model = timm.create_model(name, features_only=True, feature_cls=kind, in_chans=4).eval()
        assert maps_of(model, images(channels=4))[-1].shape[-2:] == (4, 4)
