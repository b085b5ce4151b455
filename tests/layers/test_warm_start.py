"""The identities by which a dynamic convolution starts as a static one."""

import pytest
import torch
from torch import nn

from zoo.layers import (
    BlockWeightedConv2d,
    CondConv2d,
    ConvexConv2d,
    DotProductConv2d,
    DynamicConv2d,
    DynamicConvolution2d,
    FCGeneratedConv2d,
    KernelWeightedConv2d,
)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("layer", "arguments"),
    [
        (KernelWeightedConv2d, {}),
        (BlockWeightedConv2d, {"blocks": 2}),
        (FCGeneratedConv2d, {"embedding_dim": 9}),
        (FCGeneratedConv2d, {"embedding_dim": 12, "hidden_dim": 9}),
        (CondConv2d, {"num_experts": 3}),
        (DynamicConvolution2d, {}),
        (ConvexConv2d, {}),
    ],
)
def test_exact_warm_start(layer: type[DynamicConv2d], arguments: dict[str, int], groups: int) -> None:
    static = nn.Conv2d(4, 6, 3, padding=1, groups=groups).double()
    conv = layer(4, 6, 3, padding=1, groups=groups, **arguments).double()
    x = torch.randn(3, 4, 7, 7, dtype=torch.float64)
    assert not torch.allclose(conv(x), static(x))
    assert conv.warm_start_(static.weight, static.bias) == 0.0
    torch.testing.assert_close(conv(x), static(x), rtol=1e-9, atol=1e-11)


def test_zero_vectors_are_half_the_static_convolution() -> None:
    conv = KernelWeightedConv2d(4, 6, 3).double()
    nn.init.zeros_(conv.vectors)
    half = conv.weight.unflatten(1, (3, 3)).permute(0, 3, 1, 2) / 2
    torch.testing.assert_close(
        conv.kernels(torch.randn(2, 4, dtype=torch.float64)), half.expand(2, -1, -1, -1, -1)
    )


@pytest.mark.parametrize("embedding_dim", [1, 4, 8])
def test_fgk_with_a_short_embedding_holds_the_best_approximation(embedding_dim: int) -> None:
    static = nn.Conv2d(4, 6, 3).double()
    conv = FCGeneratedConv2d(4, 6, 3, embedding_dim=embedding_dim).double()
    error = conv.warm_start_(static.weight, static.bias)
    kernels = conv.kernels(torch.randn(1, 4, dtype=torch.float64))[0]
    assert error == pytest.approx(((kernels - static.weight).norm() / static.weight.norm()).item())
    singular = torch.linalg.svdvals(static.weight.flatten(2).flatten(0, 1))
    best = (singular[embedding_dim:].square().sum() / singular.square().sum()).sqrt().item()
    assert error == pytest.approx(best)


def test_fgk_holds_a_kernel_of_zeros() -> None:
    conv = FCGeneratedConv2d(4, 6, 3)
    assert conv.warm_start_(torch.zeros(6, 4, 3, 3), torch.zeros(6)) == 0.0
    assert not conv.kernels(torch.randn(1, 4)).any()


@pytest.mark.parametrize(
    ("layer", "gated"),
    [
        (KernelWeightedConv2d, "vectors"),
        (BlockWeightedConv2d, "vectors"),
        (FCGeneratedConv2d, "gate.weight"),
        (CondConv2d, "route.weight"),
        (DynamicConvolution2d, "route.weight"),
    ],
)
def test_a_warm_started_layer_still_learns_from_the_context(layer: type[DynamicConv2d], gated: str) -> None:
    static, conv = nn.Conv2d(16, 6, 3), layer(16, 6, 3)
    conv.warm_start_(static.weight, static.bias)
    conv(torch.rand(2, 16, 5, 5)).square().sum().backward()
    assert conv.get_parameter(gated).grad.abs().max() > 0


@pytest.mark.parametrize("layer", [CondConv2d, DynamicConvolution2d, ConvexConv2d])
def test_warm_started_experts_differ(layer: type[DynamicConv2d]) -> None:
    static, conv = nn.Conv2d(4, 6, 3), layer(4, 6, 3)
    conv.warm_start_(static.weight, static.bias)
    assert (conv.experts[0] - conv.experts[1]).abs().min() > 0


def test_dpk_takes_the_bias_alone() -> None:
    static, conv = nn.Conv2d(4, 6, 3), DotProductConv2d(4, 6, 3)
    before = {name: value.clone() for name, value in conv.state_dict().items()}
    assert conv.warm_start_(static.weight, static.bias) is None
    before["bias"] = static.bias
    assert all(torch.equal(value, before[name]) for name, value in conv.state_dict().items())
