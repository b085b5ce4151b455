"""Gather-Excite against its formula, its edges, and weights that no two layers share."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.layers.attention.reference import array, conv, images, mean, norm, randomised, relu, sigmoid
from zoo.errors import ZooError
from zoo.layers.attention import ChannelGate, GatherExcite


def repeated(gathered: np.ndarray, extent: int, x: np.ndarray) -> np.ndarray:
    """Give each pixel of x the gathered pixel it lies in."""
    rows, columns = np.arange(x.shape[2]) // extent, np.arange(x.shape[3]) // extent
    return gathered[:, :, rows][:, :, :, columns]


def averaged(x: np.ndarray, extent: int) -> np.ndarray:
    """Average windows of 2 * extent - 1 pixels around every extent-th one, as far as they lie on the map."""
    height, width = (-(-size // extent) for size in x.shape[2:])
    y = np.zeros((*x.shape[:2], height, width))
    for i, j in np.ndindex(height, width):
        top, left = max(i * extent - extent + 1, 0), max(j * extent - extent + 1, 0)
        y[:, :, i, j] = x[:, :, top : (i + 1) * extent, left : (j + 1) * extent].mean(axis=(2, 3))
    return y


def convolved(x: np.ndarray, gather: nn.Sequential) -> np.ndarray:
    """Run the chain of depthwise convolutions."""
    convs = [layer for layer in gather if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in gather if isinstance(layer, nn.BatchNorm2d)]
    for index, (depthwise, bn) in enumerate(zip(convs, norms, strict=True)):
        x = norm(conv(relu(x) if index else x, depthwise), bn)
    return x


@pytest.mark.parametrize("size", [(8, 8), (9, 6), (2, 2)])
@pytest.mark.parametrize("extent", [2, 4, 8])
def test_theta_minus(extent: int, size: tuple[int, int]) -> None:
    x = images(2, 3, *size)
    wanted = array(x) * sigmoid(repeated(averaged(array(x), extent), extent, array(x)))
    torch.testing.assert_close(GatherExcite(3, extent)(x), torch.from_numpy(wanted))


@pytest.mark.parametrize("size", [(8, 8), (9, 6), (2, 2)])
@pytest.mark.parametrize("extent", [2, 4, 8])
def test_theta(extent: int, size: tuple[int, int]) -> None:
    layer, x = randomised(GatherExcite(3, extent, learned=True)), images(2, 3, *size)
    assert sum(isinstance(part, nn.Conv2d) for part in layer.gather) == {2: 1, 4: 2, 8: 3}[extent]
    wanted = array(x) * sigmoid(repeated(convolved(array(x), layer.gather), extent, array(x)))
    torch.testing.assert_close(layer(x), torch.from_numpy(wanted))


@pytest.mark.parametrize("extent", [2, 8])
def test_theta_plus_excites_through_a_bottleneck(extent: int) -> None:
    layer, x = randomised(GatherExcite(8, extent, learned=True, reduction=4)), images(2, 8, 8, 8)
    gathered = repeated(convolved(array(x), layer.gather), extent, array(x))
    hidden = relu(conv(gathered, layer.excite[0]))
    assert hidden.shape[1] == 2
    torch.testing.assert_close(layer(x), torch.from_numpy(array(x) * sigmoid(conv(hidden, layer.excite[2]))))


def test_global_theta_is_a_depthwise_convolution_of_the_whole_map() -> None:
    layer, x = randomised(GatherExcite(3, learned=True, feat_size=(5, 4))), images(2, 3, 5, 4)
    weight = array(layer.gather[0].weight)
    gathered = np.einsum("nchw,cihw->nc", array(x), weight)[:, :, None, None]
    torch.testing.assert_close(
        layer(x), torch.from_numpy(array(x) * sigmoid(norm(gathered, layer.gather[1])))
    )


def test_global_theta_gathers_constants_alike_at_every_size() -> None:
    gather = randomised(GatherExcite(3, learned=True, feat_size=(4, 4))).gather[0]
    nn.init.constant_(gather.weight, 0.3)
    for size in ((4, 4), (8, 6), (2, 3), (1, 1)):
        y = gather(torch.full((2, 3, *size), 5.0, dtype=torch.float64))
        torch.testing.assert_close(y, torch.full((2, 3, 1, 1), 0.3 * 5 * 16, dtype=torch.float64))
    layer = randomised(GatherExcite(3, learned=True, feat_size=(4, 4)))
    assert layer(images(2, 3, 7, 5)).shape == (2, 3, 7, 5)


def test_global_theta_minus_is_se_var1() -> None:
    x = images(2, 3, 5, 4)
    torch.testing.assert_close(GatherExcite(3)(x), ChannelGate(3, weighted=False)(x))
    torch.testing.assert_close(GatherExcite(3)(x), torch.from_numpy(array(x) * sigmoid(mean(array(x)))))


@pytest.mark.parametrize(("extent", "layers"), [(2, 1), (4, 2), (8, 3)])
def test_every_halving_has_its_own_parameters(extent: int, layers: int) -> None:
    layer = GatherExcite(4, extent, learned=True)
    every = list(layer.named_parameters(remove_duplicate=False))
    assert len(every) == 3 * layers, "a depthwise weight, a scale and a shift for each halving"
    assert len({parameter.data_ptr() for _, parameter in every}) == len(every), "weights are shared"
    layer(torch.randn(4, 4, 16, 16)).square().sum().backward()
    gradients = [parameter.grad for name, parameter in every if parameter.dim() == 4]
    assert len(gradients) == layers
    assert all(not torch.equal(gradients[0], other) for other in gradients[1:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"extent": 3}, r"extent must be one of 2, 4, 8, 0 \(0: global\), not 3"),
        ({"extent": 2.0}, "extent must be one of .* not 2.0"),
        ({"extent": 2, "reduction": 0}, "reduction must be a whole number of at least 1, not 0"),
        ({"learned": True}, r"a learned global gather \(extent=0\) needs feat_size=\(height, width\)"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        GatherExcite(8, **arguments)
