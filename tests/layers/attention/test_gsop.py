"""GSoP's channel gates against its formula."""

import numpy as np
import pytest
import torch

from tests.layers.attention.reference import array, conv, images, norm, randomised, relu, sigmoid
from zoo.errors import ZooError
from zoo.layers.attention import SecondOrderPooling


def test_equals_the_formula() -> None:
    layer, x = randomised(SecondOrderPooling(6, covariance_dim=4)), images(3, 6, 5, 4)
    z = relu(norm(conv(array(x), layer.reduce[0]), layer.reduce[1])).reshape(3, 4, -1)
    covariance = np.stack([np.cov(sample, bias=True) for sample in z])[:, :, :, None]
    normed = norm(covariance, layer.row_norm)[:, :, :, 0]
    weight, bias = array(layer.rows.weight)[:, 0, :, 0].reshape(4, 4, 4), array(layer.rows.bias)
    # Row d of the covariance makes the outputs 4 d to 4 d + 3 with weights of its own.
    rows = np.einsum("dvc,ndc->ndv", weight, normed).reshape(3, 16) + bias
    wanted = array(x) * sigmoid(conv(rows[:, :, None, None], layer.expand))
    torch.testing.assert_close(layer(x), torch.from_numpy(wanted))


def test_gates_see_how_channels_vary_together_and_not_their_means() -> None:
    layer = randomised(SecondOrderPooling(2, covariance_dim=2))
    torch.nn.init.dirac_(layer.reduce[0].weight)
    torch.nn.init.ones_(layer.reduce[1].weight)
    x = images(1, 2, 4, 4).abs() + 10  # stays in the linear part of the ReLU
    torch.testing.assert_close(layer(x) / x, layer(x + 5) / (x + 5))
    other = torch.stack([x[:, 0], x[:, 1].flip(1)], dim=1)
    assert not torch.allclose(
        layer(x)[:, :, 0, 0] / x[:, :, 0, 0], layer(other)[:, :, 0, 0] / other[:, :, 0, 0]
    )


def test_a_narrow_map_keeps_its_width() -> None:
    assert SecondOrderPooling(16).reduce[0].out_channels == 16
    assert SecondOrderPooling(256).reduce[0].out_channels == 128


def test_a_bad_dimension_is_named() -> None:
    with pytest.raises(ZooError, match="covariance_dim must be a whole number of at least 1, not 0"):
        SecondOrderPooling(8, covariance_dim=0)
