"""fp16: a network that computes in half precision, between inputs and outputs that stay float32.

Weights, maps, context and the kernels made of it are all fp16: half a file. It is the network of an fp32
artifact otherwise, with the same lowerings; only what would overflow is computed in fp32 between two casts.
"""

import copy

from torch import Tensor, nn


def in_half(model: nn.Module) -> nn.Module:
    """Return a copy of a network as it is exported, computing in fp16, with float32 inputs and outputs.

    Args:
        model: as :func:`export.parity.prepared` makes it, folded or not; it is left as it is.
    """
    return _InHalf(copy.deepcopy(model).half()).train(model.training)


class _InHalf(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's outputs for x (N, C, H, W), float32 both."""
        return self.network(x.half()).float()
