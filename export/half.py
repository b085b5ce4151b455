"""fp16: a network that computes in half precision, between inputs and outputs that stay float32.

Weights, maps, context and the kernels made of it are all fp16: half a file. It is the network of an fp32
artifact otherwise, with the same lowerings; only what would overflow is computed in fp32 between two casts.
"""

import copy

import torch
from torch import Tensor, nn

from export.base import first_line
from zoo.errors import ZooError


def in_half(model: nn.Module) -> nn.Module:
    """Return a copy of a network as it is exported, computing in fp16, with float32 inputs and outputs.

    Args:
        model: as :func:`export.parity.prepared` makes it, folded or not; it is left as it is.
    """
    return _InHalf(copy.deepcopy(model).half()).train(model.training)


def check_half(network: nn.Module, inputs: Tensor) -> None:
    """Refuse a network, as :func:`in_half` returns it, that torch cannot compute on the CPU.

    Raises:
        ZooError: it has an operator that torch has not for fp16, so that nothing could certify it.
    """
    try:
        with torch.inference_mode():
            network(inputs)
    except RuntimeError as error:
        raise ZooError(
            f"fp16 cannot be certified: torch cannot compute the model in half precision on the CPU "
            f"({first_line(error)}); export it in fp32."
        ) from error


class _InHalf(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's outputs for x (N, C, H, W), float32 both."""
        return self.network(x.half()).float()
