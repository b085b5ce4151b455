"""timm's modules as wired here: the widths the papers ask for, and the formulas."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.layers.attention.reference import (
    array,
    conv,
    images,
    mean,
    norm,
    randomised,
    relu,
    sigmoid,
    softmax,
)
from zoo.errors import ZooError
from zoo.layers.attention import from_timm


def test_squeeze_excite() -> None:
    layer, x = randomised(from_timm.squeeze_excite(24, reduction=8)), images(2, 24, 5, 4)
    assert layer.fc1.out_channels == 3
    gates = sigmoid(conv(relu(conv(mean(array(x)), layer.fc1)), layer.fc2))
    torch.testing.assert_close(layer(x), torch.from_numpy(array(x) * gates))


def test_effective_squeeze_excite_has_a_true_sigmoid() -> None:
    layer, x = randomised(from_timm.effective_squeeze_excite(6)), images(2, 6, 5, 4)
    torch.testing.assert_close(layer(x), torch.from_numpy(array(x) * sigmoid(conv(mean(array(x)), layer.fc))))


@pytest.mark.parametrize(("channels", "asked", "size"), [(16, 0, 3), (512, 0, 5), (16, 5, 5), (16, 1, 1)])
def test_efficient_channel_attention(channels: int, asked: int, size: int) -> None:
    layer = randomised(from_timm.efficient_channel_attention(channels, kernel_size=asked))
    x = images(2, channels, 3, 2)
    kernel = array(layer.conv.weight).ravel()
    assert len(kernel) == size
    averages = mean(array(x))[:, :, 0, 0]
    gates = np.stack([np.correlate(sample, kernel, mode="same") for sample in averages])
    torch.testing.assert_close(layer(x), torch.from_numpy(array(x) * sigmoid(gates)[:, :, None, None]))


def test_convolutional_block_attention() -> None:
    layer = randomised(from_timm.convolutional_block_attention(8, reduction=4, kernel_size=5))
    x = images(2, 8, 6, 4)

    def bottleneck(y: np.ndarray) -> np.ndarray:
        return conv(relu(conv(y, layer.channel.fc1)), layer.channel.fc2)

    y = array(x)
    y = y * sigmoid(bottleneck(mean(y)) + bottleneck(y.max(axis=(2, 3), keepdims=True)))
    stacked = np.concatenate([y.mean(axis=1, keepdims=True), y.max(axis=1, keepdims=True)], axis=1)
    spatial = norm(conv(stacked, layer.spatial.conv.conv), layer.spatial.conv.bn)
    torch.testing.assert_close(layer(x), torch.from_numpy(y * sigmoid(spatial)))
    assert layer.channel.fc1.out_channels == 2
    assert layer.spatial.conv.conv.kernel_size == (5, 5)


def test_non_local() -> None:
    layer, x = randomised(from_timm.non_local(6)), images(2, 6, 3, 4)
    t, p, g = (conv(array(x), part).reshape(2, 3, -1) for part in (layer.t, layer.p, layer.g))
    attention = softmax(np.einsum("ndi,ndj->nij", t, p) / 6**0.5, 2)
    attended = np.einsum("nij,ndj->ndi", attention, g).reshape(2, 3, 3, 4)
    wanted = array(x) + norm(conv(attended, layer.z), layer.norm)
    torch.testing.assert_close(layer(x), torch.from_numpy(wanted))


def test_non_local_starts_as_the_identity() -> None:
    x = images(2, 6, 3, 4).float()
    torch.testing.assert_close(from_timm.non_local(6)(x), x, rtol=0, atol=0)


GEOMETRIES = {
    "plain": ((6, 8), {}),
    "stride": ((6, 8), {"stride": 2}),
    "groups": ((8, 8), {"groups": 4, "stride": 2}),
    "depthwise": ((8, 8), {"groups": 8}),
    "dilated": ((6, 8), {"dilation": 2}),
    "5x5": ((6, 8), {"kernel_size": 5}),
}
geometries = pytest.mark.parametrize("geometry", GEOMETRIES)


@pytest.mark.parametrize(
    ("geometry", "split_input"),
    [*((geometry, False) for geometry in GEOMETRIES), ("plain", True), ("stride", True), ("dilated", True)],
)
def test_selective_kernel(geometry: str, split_input: bool) -> None:
    channels, arguments = GEOMETRIES[geometry]
    layer = randomised(from_timm.selective_kernel(*channels, **arguments, split_input=split_input))
    x = images(2, channels[0], 7, 6)
    inputs = np.split(array(x), 2, axis=1) if split_input else [array(x)] * 2
    paths = np.stack(
        [relu(norm(conv(y, path.conv), path.bn)) for y, path in zip(inputs, layer.paths, strict=True)], axis=1
    )
    hidden = relu(norm(conv(mean(paths.sum(axis=1)), layer.attn.fc_reduce), layer.attn.bn))
    choice = softmax(conv(hidden, layer.attn.fc_select).reshape(2, 2, channels[1], 1, 1), 1)
    y = layer(x)
    torch.testing.assert_close(y, torch.from_numpy((paths * choice).sum(axis=1)))
    assert y.shape == replaced(channels, arguments)(x).shape
    spans = [path.conv.dilation[0] * (path.conv.kernel_size[0] - 1) for path in layer.paths]
    assert spans[1] - spans[0] == 2 * arguments.get("dilation", 1)
    assert layer.attn.fc_reduce.out_channels == 32


@geometries
def test_split_attention(geometry: str) -> None:
    channels, arguments = GEOMETRIES[geometry]
    layer = randomised(from_timm.split_attention(*channels, **arguments))
    x = images(2, channels[0], 7, 6)
    groups = arguments.get("groups", 1)
    assert layer.conv.groups == max(groups, 2)
    splits = relu(norm(conv(array(x), layer.conv), layer.bn0))
    splits = splits.reshape(2, 2, channels[1], *splits.shape[2:])
    hidden = relu(norm(conv(mean(splits.sum(axis=1)), layer.fc1), layer.bn1))
    cardinality = max(groups // 2, 1)
    logits = conv(hidden, layer.fc2).reshape(2, cardinality, 2, -1)
    choice = softmax(logits, 2).transpose(0, 2, 1, 3).reshape(2, 2, channels[1], 1, 1)
    y = layer(x)
    torch.testing.assert_close(y, torch.from_numpy((splits * choice).sum(axis=1)))
    assert y.shape == replaced(channels, arguments)(x).shape


@pytest.mark.parametrize("radix", [2, 3, 4])
@pytest.mark.parametrize("channels", [96, 144, 960])
def test_split_attention_fits_the_depthwise_convolutions_of_mobilenets(channels: int, radix: int) -> None:
    layer = from_timm.split_attention(channels, channels, groups=channels, radix=radix).eval()
    assert layer.conv.groups == channels
    assert layer(torch.randn(1, channels, 4, 4)).shape == (1, channels, 4, 4)


def replaced(channels: tuple[int, int], arguments: dict[str, int]) -> nn.Conv2d:
    """Return the convolution whose place such a module takes."""
    size, dilation = arguments.get("kernel_size", 3), arguments.get("dilation", 1)
    rest = {key: value for key, value in arguments.items() if key != "kernel_size"}
    return nn.Conv2d(*channels, size, padding=dilation * (size // 2), **rest).double()


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (from_timm.squeeze_excite, {"reduction": 0}, "reduction must be a whole number of at least 1, not 0"),
        (from_timm.squeeze_excite, {"reduction": 2.5}, "reduction must be a whole number .* not 2.5"),
        (from_timm.squeeze_excite, {"reduction": 9}, "reduction=9 leaves nothing of 8 channels"),
        (from_timm.efficient_channel_attention, {"kernel_size": 4}, "must be odd, not 4; 3 and 5 would do"),
        (from_timm.efficient_channel_attention, {"kernel_size": -3}, "kernel_size must be a whole number"),
        (from_timm.convolutional_block_attention, {"reduction": 4, "kernel_size": 6}, "must be odd, not 6"),
        (from_timm.convolutional_block_attention, {"reduction": 16}, "reduction=16 leaves nothing of 8"),
        (from_timm.non_local, {"reduction": 0}, "reduction must be a whole number of at least 1"),
        (from_timm.selective_kernel, {"reduction": 0}, "reduction must be a whole number of at least 1"),
        (from_timm.selective_kernel, {"split_input": True, "groups": 8}, "not groups=8 and 8 channels"),
        (from_timm.split_attention, {"radix": 1}, "radix must be at least 2 and divide 8 channels, not 1"),
        (from_timm.split_attention, {"radix": 3}, "radix must be at least 2 and divide 8 channels, not 3"),
        (from_timm.split_attention, {"radix": 3, "groups": 4}, "divide 4 groups, not 3"),
    ],
)
def test_bad_arguments_are_named(make, arguments: dict, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        make(8, **arguments)
