"""SE-Var1 and SE-Var2 against their formulas."""

import torch

from tests.layers.attention.reference import array, images, mean, randomised, sigmoid
from zoo.layers.attention import ChannelGate


def test_var1_is_the_sigmoid_of_the_average() -> None:
    gate, x = ChannelGate(5, weighted=False), images(3, 5, 4, 6)
    assert not list(gate.parameters())
    wanted = array(x) * sigmoid(mean(array(x)))
    torch.testing.assert_close(gate(x), torch.from_numpy(wanted))


def test_var2_weighs_the_average_first() -> None:
    gate, x = randomised(ChannelGate(5, weighted=True)), images(3, 5, 4, 6)
    wanted = array(x) * sigmoid(array(gate.weight)[:, None, None] * mean(array(x)))
    torch.testing.assert_close(gate(x), torch.from_numpy(wanted))


def test_var2_starts_as_var1() -> None:
    x = images(3, 5, 4, 6).float()
    torch.testing.assert_close(ChannelGate(5, weighted=True)(x), ChannelGate(5, weighted=False)(x))
