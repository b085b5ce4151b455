"""Multi-head self-attention in the place of a convolution, as in Bottleneck Transformers (BoTNet)."""

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import ZooError
from zoo.layers.attention.checks import check_positive


class MultiHeadSelfAttention2d(nn.Module):
    """Let every pixel attend to all others, by content and by relative position.

        logits[p,q] = q_p . (k_q + height_rel[row(q) - row(p)] + width_rel[col(q) - col(p)]) / sqrt(D)
        y_p         = sum_q softmax_q(logits[p,q]) v_q

    in each head, on its D = out_channels / heads channels of the queries, keys and values, which one 1x1
    convolution makes. A stride pools the result by averaging, as BoTNet does.

    timm's ``BottleneckAttn(scale_pos_embed=True)`` computes the same, but for one feature size only; here the
    position tables are resized to that of the input, which leaves them as they are at their own size.

    Paper: Bottleneck Transformers, https://arxiv.org/abs/2101.11605.

    Args:
        in_channels: C.
        out_channels: O, a multiple of ``heads``; C by default.
        heads: attention heads.
        stride: of the result.
        feat_size: (H, W) of the input that the position tables are made for.

    Parameters:
        qkv ``Conv2d(C, 3 O, 1)``, height_rel (2 H - 1, D), width_rel (2 W - 1, D).

    Shapes:
        input ``(N, C, H, W)`` of any H and W, output ``(N, O, H / stride, W / stride)`` rounded up.
        Memory grows with (H W)^2.

    Raises:
        ZooError: heads, a stride or a size that is not positive, or heads that do not divide
            ``out_channels``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        *,
        feat_size: tuple[int, int],
        heads: int = 4,
        stride: int = 1,
    ):
        super().__init__()
        out_channels = out_channels or in_channels
        check_positive("stride", stride)
        if out_channels % check_positive("heads", heads):
            fits = [count for count in range(1, 17) if out_channels % count == 0]
            raise ZooError(
                f"heads={heads} does not divide {out_channels} channels; "
                f"{', '.join(map(str, fits))} would do."
            )
        height, width = (check_positive("feat_size", side) for side in feat_size)
        self.heads = heads
        head_dim = out_channels // heads
        self.scale = head_dim**-0.5
        self.qkv = nn.Conv2d(in_channels, 3 * out_channels, 1, bias=False)
        self.height_rel = nn.Parameter(torch.empty(2 * height - 1, head_dim))
        self.width_rel = nn.Parameter(torch.empty(2 * width - 1, head_dim))
        # Rounding up, a strided convolution's output size: the block's shortcut has it too.
        self.pool = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()
        trunc_normal_(self.qkv.weight, std=in_channels**-0.5)
        trunc_normal_(self.height_rel, std=self.scale)
        trunc_normal_(self.width_rel, std=self.scale)

    def forward(self, x: Tensor) -> Tensor:
        """Attend over the pixels of x (N, C, H, W)."""
        height, width = x.shape[2], x.shape[3]
        queries, keys, values = self.qkv(x).flatten(2).unflatten(1, (3, self.heads, -1)).unbind(1)
        queries = queries.transpose(2, 3) * self.scale
        # From here on (N, heads, pixels, D) or, for the positions, (N, heads, H, W, D).
        pixels = queries.unflatten(2, (height, width))
        by_row = pixels @ _relative(self.height_rel, height)
        by_column = (pixels.transpose(2, 3) @ _relative(self.width_rel, width)).transpose(2, 3)
        positions = by_row.unsqueeze(5) + by_column.unsqueeze(4)
        logits = queries @ keys + positions.flatten(4).flatten(2, 3)
        y = values @ logits.softmax(dim=3).transpose(2, 3)
        return self.pool(y.flatten(1, 2).unflatten(2, (height, width)))


def _relative(table: Tensor, size: int) -> Tensor:
    """Lay a table of offsets (2 S - 1, D) out by position: (size, D, size), entry ``[i, :, j]`` for j - i."""
    table = F.interpolate(table.t().unsqueeze(0), size=[2 * size - 1], mode="linear", align_corners=True)
    return table[0].t().unfold(0, size, 1).flip(0)
