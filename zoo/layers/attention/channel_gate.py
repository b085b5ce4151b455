"""Squeeze-Excitation without its bottleneck: SE-Var1 and SE-Var2 of the ECA-Net paper."""

import torch
from torch import Tensor, nn


class ChannelGate(nn.Module):
    """Scale every channel by a gate that its own average alone opens.

        SE-Var1    y[n,c] = x[n,c] * sigmoid(g[n,c])
        SE-Var2    y[n,c] = x[n,c] * sigmoid(weight[c] * g[n,c])        g = mean of x over H and W

    From ECA-Net, https://arxiv.org/abs/1910.03151, section 3.2, where they show that neither the reduction of
    Squeeze-Excitation nor its exchange between channels is what helps most.

    Args:
        channels: C.
        weighted: learn one weight a channel (SE-Var2), which start at 1: as SE-Var1.

    Parameters:
        weight (C), or none.

    Shapes:
        input and output ``(N, C, H, W)``.
    """

    weight: Tensor | None

    def __init__(self, channels: int, weighted: bool):
        super().__init__()
        self.register_parameter("weight", nn.Parameter(torch.ones(channels)) if weighted else None)

    def forward(self, x: Tensor) -> Tensor:
        """Gate x (N, C, H, W)."""
        context = x.mean(dim=(2, 3), keepdim=True)
        weight = self.weight
        if weight is not None:
            context = context * weight.view(1, -1, 1, 1)
        return x * context.sigmoid()
