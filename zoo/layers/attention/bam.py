"""BAM, the Bottleneck Attention Module: a channel and a spatial branch, added."""

from torch import Tensor, nn

from zoo.layers.attention.checks import check_positive, reduced


class BottleneckAttentionModule(nn.Module):
    """Emphasise channels and places at once by a gate of the full size of the map.

        y = x + x * sigmoid(channel(x) + spatial(x))

        channel: average over H and W, 1x1 (C to C/r), BN, ReLU, 1x1 (C/r to C), BN        (N, C, 1, 1)
        spatial: 1x1 (C to C/r), BN, ReLU, two dilated 3x3 each with BN and ReLU,
                 1x1 (C/r to 1), BN                                                        (N, 1, H, W)

    These are equations 1 to 4 of the paper, with batch norm and ReLU behind hidden layers as in the authors'
    code. That code multiplies the branches; the paper adds them, and finds adding to be better.

    Paper: BAM, https://arxiv.org/abs/1807.06514.

    Args:
        channels: C.
        reduction: r.
        dilation: of the two 3x3 convolutions.

    Shapes:
        input and output ``(N, C, H, W)``; in training N must be at least 2, for the batch norm of
        the channel branch.

    Raises:
        ZooError: a reduction or dilation that is not positive, or a reduction that leaves no channels.
    """

    def __init__(self, channels: int, reduction: int = 16, dilation: int = 4):
        super().__init__()
        hidden = reduced(channels, reduction)
        check_positive("dilation", dilation)
        self.channel = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            *_conv_norm(channels, hidden),
            nn.ReLU(inplace=True),
            *_conv_norm(hidden, channels),
        )
        self.spatial = nn.Sequential(
            *_conv_norm(channels, hidden),
            nn.ReLU(inplace=True),
            *_conv_norm(hidden, hidden, 3, dilation),
            nn.ReLU(inplace=True),
            *_conv_norm(hidden, hidden, 3, dilation),
            nn.ReLU(inplace=True),
            *_conv_norm(hidden, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Emphasise parts of x (N, C, H, W)."""
        return x + x * (self.channel(x) + self.spatial(x)).sigmoid()


def _conv_norm(
    in_channels: int, out_channels: int, kernel_size: int = 1, dilation: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    padding = dilation * (kernel_size // 2)
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=False)
    return conv, nn.BatchNorm2d(out_channels)
