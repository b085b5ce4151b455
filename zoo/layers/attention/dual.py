"""DANet's dual attention: over positions and over channels."""

import torch
from torch import Tensor, nn

from zoo.layers.attention.checks import reduced


class DualAttention(nn.Module):
    """Add to x what its pixels attend to among pixels, and its channels among channels.

        y          = x + alpha * position + beta * channel
        position_j = sum_i softmax_i(query(x_j) . key(x_i)) value(x_i)           pixels i, j
        channel_j  = sum_i softmax_i(x_i . x_j) x_i                             channels i, j

    ``alpha`` and ``beta`` start at 0, so a new module is the identity. The paper sums the two attended maps
    behind convolutions of a segmentation head; within a classifier's backbone the sum is taken around one
    residual. The channel softmax is over the plain dot products of the paper's equation 3, not over their
    distance to the greatest, as the authors' code has it.

    Paper: Dual Attention Network, https://arxiv.org/abs/1809.02983.

    Args:
        channels: C.
        reduction: C over the width of queries and keys.

    Parameters:
        query, key ``Conv2d(C, C / reduction, 1)``, value ``Conv2d(C, C, 1)``, alpha (1), beta (1).

    Shapes:
        input and output ``(N, C, H, W)``. Memory grows with (H W)^2 and with C^2.

    Raises:
        ZooError: a reduction that is not positive or leaves no channels.
    """

    def __init__(self, channels: int, reduction: int = 8):
        super().__init__()
        hidden = reduced(channels, reduction)
        self.query = nn.Conv2d(channels, hidden, 1, bias=False)
        self.key = nn.Conv2d(channels, hidden, 1, bias=False)
        self.value = nn.Conv2d(channels, channels, 1, bias=False)
        self.alpha = nn.Parameter(torch.zeros(1))
        self.beta = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Attend over the pixels and the channels of x (N, C, H, W)."""
        attended = self.alpha * self.position(x) + self.beta * channel(x)
        return x + attended.unflatten(2, (x.shape[2], x.shape[3]))

    def position(self, x: Tensor) -> Tensor:
        """Return what each pixel of x (N, C, H, W) attends to, (N, C, HW)."""
        attention = (self.query(x).flatten(2).transpose(1, 2) @ self.key(x).flatten(2)).softmax(dim=2)
        return self.value(x).flatten(2) @ attention.transpose(1, 2)


def channel(x: Tensor) -> Tensor:
    """Return what each channel of x (N, C, H, W) attends to, (N, C, HW)."""
    rows = x.flatten(2)
    return (rows @ rows.transpose(1, 2)).softmax(dim=2) @ rows
