"""BAM against equations 1 to 4 of its paper."""

import pytest
import torch
from torch import nn

from tests.layers.attention.reference import array, conv, images, mean, norm, randomised, relu, sigmoid
from zoo.errors import ZooError
from zoo.layers.attention import BottleneckAttentionModule


def test_equals_the_equations() -> None:
    layer, x = randomised(BottleneckAttentionModule(8, reduction=4, dilation=2)), images(2, 8, 7, 5)

    def branch(y, layers: nn.Sequential):
        convs = [part for part in layers if isinstance(part, nn.Conv2d)]
        norms = [part for part in layers if isinstance(part, nn.BatchNorm2d)]
        for index, (c, n) in enumerate(zip(convs, norms, strict=True)):
            y = norm(conv(relu(y) if index else y, c), n)
        return y

    channel = branch(mean(array(x)), layer.channel)
    spatial = branch(array(x), layer.spatial)
    assert channel.shape == (2, 8, 1, 1)
    assert spatial.shape == (2, 1, 7, 5)
    wanted = array(x) * (1 + sigmoid(channel + spatial))
    torch.testing.assert_close(layer(x), torch.from_numpy(wanted))


def test_the_layers_are_those_of_the_paper() -> None:
    layer = BottleneckAttentionModule(32)
    shapes = [tuple(part.weight.shape) for part in layer.modules() if isinstance(part, nn.Conv2d)]
    assert shapes == [
        (2, 32, 1, 1), (32, 2, 1, 1),
        (2, 32, 1, 1), (2, 2, 3, 3), (2, 2, 3, 3), (1, 2, 1, 1),
    ]  # fmt: skip
    dilated = [part for part in layer.spatial if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3)]
    assert [part.dilation for part in dilated] == [(4, 4), (4, 4)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reduction": 0}, "reduction must be a whole number of at least 1, not 0"),
        ({"reduction": 16}, "reduction=16 leaves nothing of 8 channels; give at most 8"),
        ({"reduction": 2, "dilation": 0}, "dilation must be a whole number of at least 1, not 0"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        BottleneckAttentionModule(8, **arguments)
