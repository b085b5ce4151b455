"""Attention over pixels and channels around a residual, SAGAN's and DANet's, against their formulas."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.layers.attention.reference import array, conv, images, randomised, softmax
from zoo.errors import ZooError
from zoo.layers.attention import DualAttention, SAGANAttention


def attend(queries: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return for every query pixel the values weighted by softmax over key pixels, one pixel at a time."""
    n, channels, height, width = values.shape
    queries, keys, values = (a.reshape(n, a.shape[1], -1) for a in (queries, keys, values))
    y = np.zeros((n, channels, height * width))
    for sample, j in np.ndindex(n, height * width):
        y[sample, :, j] = values[sample] @ softmax(keys[sample].T @ queries[sample, :, j], 0)
    return y.reshape(n, channels, height, width)


def test_sagan() -> None:
    layer, x = randomised(SAGANAttention(8, reduction=2)), images(2, 8, 3, 4)
    attended = attend(*(conv(array(x), part) for part in (layer.g, layer.f, layer.h)))
    wanted = array(x) + array(layer.gamma) * conv(attended, layer.v)
    torch.testing.assert_close(layer(x), torch.from_numpy(wanted))
    assert layer.h.out_channels == 4


def test_dual() -> None:
    layer, x = randomised(DualAttention(8, reduction=2)), 0.5 * images(2, 8, 3, 4)
    position = attend(*(conv(array(x), part) for part in (layer.query, layer.key, layer.value)))
    channel = np.zeros_like(array(x))
    for sample, j in np.ndindex(2, 8):
        alike = [(array(x)[sample, i] * array(x)[sample, j]).sum() for i in range(8)]
        channel[sample, j] = np.tensordot(softmax(np.array(alike), 0), array(x)[sample], axes=1)
    wanted = array(x) + array(layer.alpha) * position + array(layer.beta) * channel
    torch.testing.assert_close(layer(x), torch.from_numpy(wanted))
    assert layer.query.out_channels == 4


@pytest.mark.parametrize("make", [SAGANAttention, DualAttention])
def test_starts_as_the_identity_and_learns(make: type[nn.Module]) -> None:
    layer, x = make(8), images(2, 8, 3, 4).float()
    torch.testing.assert_close(layer(x), x, rtol=0, atol=0)
    layer(x).square().sum().backward()
    moved = {name for name, parameter in layer.named_parameters() if parameter.grad.abs().max() > 0}
    assert moved == ({"gamma"} if make is SAGANAttention else {"alpha", "beta"})


@pytest.mark.parametrize("make", [SAGANAttention, DualAttention])
def test_bad_reductions_are_named(make: type[nn.Module]) -> None:
    with pytest.raises(ZooError, match="reduction must be a whole number of at least 1, not 0"):
        make(8, reduction=0)
    with pytest.raises(ZooError, match="reduction=9 leaves nothing of 8 channels; give at most 8"):
        make(8, reduction=9)
