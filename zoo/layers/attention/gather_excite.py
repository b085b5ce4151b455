"""Gather-Excite: gates that see a neighbourhood of each pixel, by averaging or by learned convolutions."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import ZooError
from zoo.layers.attention.checks import check_choice, reduced

EXTENTS = (2, 4, 8, 0)
"""How many pixels one gate stands for, along each side; 0 is the whole map."""


class GatherExcite(nn.Module):
    """Gather context over an extent, then gate every pixel by the context it lies in.

        y = x * interp(sigmoid(excite(gather(x))))

    ``interp`` repeats each gathered pixel over the ``extent`` x ``extent`` pixels that it stands for.

    ================ ========================================================= ======================
    variant          gather                                                    excite
    ================ ========================================================= ======================
    theta-           average over (2 extent - 1)^2 pixels, stride extent       identity
    theta            log2(extent) depthwise 3x3, stride 2, each with BN and    identity
                     a ReLU between; global: one depthwise as large as the map
    theta+           as theta                                                  1x1, ReLU, 1x1 as in SE
    ================ ========================================================= ======================

    Every halving has weights of its own. theta- with the global extent is SE-Var1 of the ECA-Net paper.
    timm's ``GatherExcite`` cannot be used: of 1.0.31, every variant with parameters raises TypeError.

    Paper: Gather-Excite, https://arxiv.org/abs/1810.12348.

    Args:
        channels: C.
        extent: one of ``EXTENTS``.
        learned: gather by convolutions (theta and theta+).
        reduction: width of the excite bottleneck, C / reduction (theta+); None leaves it out.
        feat_size: (H, W) of the map that a learned global gather has its weights for. It takes other sizes
            too, with the weights resized.

    Shapes:
        input and output ``(N, C, H, W)`` of any H and W. In training, where a map is gathered to one pixel N
        must be at least 2, for the batch norm of theta and theta+.

    Raises:
        ZooError: another extent, a reduction that is not positive or leaves no channels, or no ``feat_size``
            for a learned global gather.
    """

    def __init__(
        self,
        channels: int,
        extent: int = 0,
        *,
        learned: bool = False,
        reduction: int | None = None,
        feat_size: tuple[int, int] | None = None,
    ):
        super().__init__()
        self.extent = check_choice("extent", extent, EXTENTS, " (0: global)")
        self.gather = _convolutions(channels, extent, feat_size) if learned else _average(extent)
        self.excite: nn.Module = nn.Identity()
        if reduction is not None:
            hidden = reduced(channels, reduction)
            self.excite = nn.Sequential(
                nn.Conv2d(channels, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, channels, 1)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Gate x (N, C, H, W)."""
        gates = self.excite(self.gather(x)).sigmoid()
        if self.extent > 0:
            # The last gates of a side that extent does not divide stand for the pixels that are left.
            gates = F.interpolate(gates, scale_factor=float(self.extent), mode="nearest")
            gates = gates[:, :, : x.shape[2], : x.shape[3]]
        return x * gates


class GlobalDepthwise(nn.Module):
    """A depthwise convolution as large as the feature map: (N, C, H, W) to (N, C, 1, 1).

    Args:
        channels: C.
        feat_size: (H, W) of the weights. For a map of another size they are resized and scaled so that a
            constant map is gathered to the same value.

    Parameters:
        weight (C, 1, H, W).
    """

    def __init__(self, channels: int, feat_size: tuple[int, int]):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, *feat_size))
        self.area = feat_size[0] * feat_size[1]
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # nn.Conv2d's own

    def forward(self, x: Tensor) -> Tensor:
        """Gather x (N, C, H, W) to (N, C, 1, 1)."""
        # No branch on the size, so that the module traces; at the weights' own size this changes nothing.
        weight = F.interpolate(self.weight, size=[x.shape[2], x.shape[3]], mode="bilinear")
        return (x * weight.transpose(0, 1)).mean(dim=(2, 3), keepdim=True) * self.area


def _average(extent: int) -> nn.Module:
    if extent == 0:
        return nn.AdaptiveAvgPool2d(1)
    return nn.AvgPool2d(2 * extent - 1, stride=extent, padding=extent - 1, count_include_pad=False)


def _convolutions(channels: int, extent: int, feat_size: tuple[int, int] | None) -> nn.Module:
    if extent == 0:
        if feat_size is None:
            raise ZooError("a learned global gather (extent=0) needs feat_size=(height, width).")
        return nn.Sequential(GlobalDepthwise(channels, feat_size), nn.BatchNorm2d(channels))
    layers: list[nn.Module] = []
    for halving in range(int(math.log2(extent))):
        if halving > 0:
            layers.append(nn.ReLU(inplace=True))
        layers.append(
            nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False),
        )
        layers.append(nn.BatchNorm2d(channels))
    return nn.Sequential(*layers)
