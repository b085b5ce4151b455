"""What gates of blocks have in common with gates of kernels and with gates of outputs."""

import pytest
import torch
from torch import nn

from tests.layers import reference
from tests.layers.test_families import randomised
from zoo.layers import (
    LOWERINGS,
    BlockWeightedConv2d,
    DynamicConv2d,
    KernelWeightedConv2d,
    lowerings_of,
    set_lowering,
)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("lowering", lowerings_of(BlockWeightedConv2d))
def test_blocks_of_several_channels_equal_the_loops(lowering: str, groups: int) -> None:
    conv = set_lowering(
        randomised(BlockWeightedConv2d(8, 6, 3, padding=1, groups=groups, blocks=2)), lowering
    )
    one = LOWERINGS[lowering].batch == "one"
    x = torch.randn(1 if one else 3, 8, 5, 4, dtype=torch.float64)
    wanted = torch.from_numpy(reference.convolve(conv, x.numpy(), (1, 1, 1, 1)))
    for made in (conv, torch.fx.symbolic_trace(conv), torch.jit.script(conv)):
        torch.testing.assert_close(made(x), wanted, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_block_for_each_channel_is_kernel_weighting(groups: int) -> None:
    conv = randomised(BlockWeightedConv2d(8, 6, 3, groups=groups, blocks=8 // groups))
    same = KernelWeightedConv2d(8, 6, 3, groups=groups).double()
    same.load_state_dict(conv.state_dict())
    x = torch.randn(3, 8, 7, 6, dtype=torch.float64)
    torch.testing.assert_close(conv(x), same(x), rtol=1e-9, atol=1e-11)


def test_one_block_excites_the_outputs_of_a_static_convolution() -> None:
    conv = randomised(BlockWeightedConv2d(8, 6, 3, bias=False, blocks=1))
    x = torch.randn(3, 8, 7, 6, dtype=torch.float64)
    weight = conv.weight.unflatten(1, (3, 3)).permute(0, 3, 1, 2)
    gates = (conv.reduce(x.mean(dim=(2, 3))) @ conv.vectors[:, 0].t()).sigmoid()
    wanted = nn.functional.conv2d(x, weight) * gates[:, :, None, None]
    for lowering in ("scaled", "unfold"):
        torch.testing.assert_close(set_lowering(conv, lowering)(x), wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("channels", "asked", "made"), [(8, 4, 4), (6, 4, 2), (5, 4, 1), (2, 4, 2), (9, 6, 3)]
)
def test_blocks_are_of_one_width(channels: int, asked: int, made: int) -> None:
    conv = BlockWeightedConv2d(channels, 4, 3, blocks=asked)
    assert conv.blocks == made
    assert conv.vectors.shape == (4, made, conv.vector_dim)


def test_it_is_scaled_wherever_it_stands() -> None:
    for groups in (1, 2, 8):
        conv = BlockWeightedConv2d(8, 16, 3, groups=groups)
        assert conv.auto_lowering() == conv.training_lowering() == "scaled"
        assert "scaled" in lowerings_of(conv)


@pytest.mark.parametrize("layer", [KernelWeightedConv2d, BlockWeightedConv2d])
def test_kernels_are_no_wider_than_autocast_multiplies(layer: type[DynamicConv2d]) -> None:
    """A batch's kernels are large: twice the width would take twice the time to move."""
    conv, context = layer(8, 4, 3), torch.randn(2, 8)
    with torch.autocast("cpu", torch.bfloat16):
        mixing, _ = conv.factors(context)
    assert mixing.dtype == torch.bfloat16
    assert conv.factors(context)[0].dtype == torch.float32
