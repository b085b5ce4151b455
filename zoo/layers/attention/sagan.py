"""SAGAN's self-attention: a residual that starts at nothing."""

import torch
from torch import Tensor, nn

from zoo.layers.attention.checks import reduced


class SAGANAttention(nn.Module):
    """Add to every pixel what it attends to over the whole map.

        y_j = x_j + gamma * v( sum_i softmax_i(f(x_i) . g(x_j)) h(x_i) )

    f, g and h are 1x1 convolutions to C / reduction channels, v one back to C. ``gamma`` starts at 0, so a
    new module is the identity.

    Paper: Self-Attention Generative Adversarial Networks, https://arxiv.org/abs/1805.08318, without the
    spectral norm that belongs to GAN training.

    Args:
        channels: C.
        reduction: C over the width of f, g and h.

    Parameters:
        f, g, h ``Conv2d(C, C / reduction, 1)``, v ``Conv2d(C / reduction, C, 1)``, gamma (1).

    Shapes:
        input and output ``(N, C, H, W)``. Memory grows with (H W)^2.

    Raises:
        ZooError: a reduction that is not positive or leaves no channels.
    """

    def __init__(self, channels: int, reduction: int = 8):
        super().__init__()
        hidden = reduced(channels, reduction)
        self.f = nn.Conv2d(channels, hidden, 1, bias=False)
        self.g = nn.Conv2d(channels, hidden, 1, bias=False)
        self.h = nn.Conv2d(channels, hidden, 1, bias=False)
        self.v = nn.Conv2d(hidden, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Attend over the pixels of x (N, C, H, W)."""
        # attention (N, HW, HW): a row is what one pixel attends to.
        attention = (self.g(x).flatten(2).transpose(1, 2) @ self.f(x).flatten(2)).softmax(dim=2)
        attended = self.h(x).flatten(2) @ attention.transpose(1, 2)
        attended = attended.unflatten(2, (x.shape[2], x.shape[3]))
        return x + self.gamma * self.v(attended)
