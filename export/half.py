"""fp16: a network that computes in half precision, between inputs and outputs that stay float32.

Weights, maps, context and the kernels made of it are all fp16: half a file, and the faster multiplies of
devices that have them. Nothing is kept apart in fp32; what that costs, the certificate measures.
"""

import copy

from torch import Tensor, nn

from export.base import Runtime
from zoo.layers import settle


def in_half(model: nn.Module, runtime: Runtime | None = None) -> nn.Module:
    """Return a copy of a network as it is exported, computing in fp16, with float32 inputs and outputs.

    The layers settle anew: in a dpk whose logits are bounded for fp32, exponentials overflow in fp16, which
    ends at e to the 11.

    Args:
        model: as :func:`export.parity.prepared` makes it, folded or not; it is left as it is.
        runtime: the format it will run in; None stands for PyTorch as it is.
    """
    fused_softmax = runtime is not None and runtime.fused_softmax
    return _InHalf(settle(copy.deepcopy(model).half(), fused_softmax)).train(model.training)


class _InHalf(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's outputs for x (N, C, H, W), float32 both."""
        return self.network(x.half()).float()
