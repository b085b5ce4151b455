"""timm's attention modules behind this table's argument names, with their values checked."""

import math

from timm.layers import (
    EcaModule,
    EffectiveSEModule,
    NonLocalAttn,
    SelectiveKernel,
    SEModule,
    SplitAttn,
)
from timm.layers.cbam import CbamModule
from torch import nn

from zoo.errors import ZooError
from zoo.layers.attention.checks import check_odd, check_positive, reduced


def squeeze_excite(channels: int, reduction: int = 16) -> nn.Module:
    """Squeeze-Excitation, ``x * sigmoid(fc2(relu(fc1(mean x))))``, https://arxiv.org/abs/1709.01507.

    Raises:
        ZooError: a reduction that is not positive or leaves no channels.
    """
    # timm would round the width to a multiple of 8 by itself; the paper does not.
    return SEModule(channels, rd_channels=reduced(channels, reduction))


def effective_squeeze_excite(channels: int) -> nn.Module:
    """SE-Var3, ``x * sigmoid(fc(mean x))`` with one full layer: "effective SE", with a true sigmoid.

    ECA-Net, https://arxiv.org/abs/1910.03151, section 3.2; CenterMask, https://arxiv.org/abs/1911.06667.
    """
    return EffectiveSEModule(channels, gate_layer="sigmoid")


def efficient_channel_attention(channels: int, kernel_size: int = 0) -> nn.Module:
    """ECA, ``x * sigmoid(conv1d(mean x))`` along the channels, https://arxiv.org/abs/1910.03151.

    Args:
        channels: C.
        kernel_size: odd, or 0 for the paper's choice: the odd number nearest to (log2 C + 1) / 2, at least 3.

    Raises:
        ZooError: an even or negative kernel size.
    """
    if kernel_size == 0:
        return EcaModule(channels)
    return EcaModule(kernel_size=check_odd("kernel_size", kernel_size))


def convolutional_block_attention(channels: int, reduction: int = 16, kernel_size: int = 7) -> nn.Module:
    """CBAM: a channel gate, then a spatial one, each from average and maximum, https://arxiv.org/abs/1807.06521.

    Raises:
        ZooError: a reduction that is not positive or leaves no channels, or an even kernel size.
    """
    check_odd("kernel_size", kernel_size)
    return CbamModule(channels, rd_channels=reduced(channels, reduction), spatial_kernel_size=kernel_size)


def non_local(channels: int, reduction: int = 2) -> nn.Module:
    """Non-local block, embedded Gaussian: ``x + BN(z(softmax(t(x)^T p(x) / sqrt(C)) g(x)))``.

    https://arxiv.org/abs/1711.07971. The batch norm starts at zero, so a new block is the identity. Memory
    grows with (H W)^2.

    Raises:
        ZooError: a reduction that is not positive or leaves no channels.
    """
    return NonLocalAttn(channels, rd_channels=reduced(channels, reduction))


def selective_kernel(
    in_channels: int,
    out_channels: int | None = None,
    *,
    kernel_size: int = 3,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    reduction: int = 16,
    split_input: bool = False,
) -> nn.Module:
    """Selective Kernel: two convolutions of unlike size, mixed channel by channel, https://arxiv.org/abs/1903.06586.

    Args:
        in_channels, out_channels, kernel_size, stride, dilation, groups: of the convolution it replaces. The
            second path sees two pixels more, by dilation.
        reduction: out_channels over the width of the selection, which is at least 32.
        split_input: give each path one half of the input instead of all of it, timm's way to save parameters;
            not for grouped convolutions.

    Shapes:
        as of the convolution; in training N must be at least 2, for the selection's batch norm.

    Raises:
        ZooError: a reduction that is not positive, or an input that cannot be split.
    """
    out_channels = out_channels or in_channels
    if split_input and (groups > 1 or in_channels % 2):
        raise ZooError(
            f"split_input=True needs a convolution without groups and an even number of channels, not "
            f"groups={groups} and {in_channels} channels; leave it False."
        )
    return SelectiveKernel(
        in_channels,
        out_channels,
        kernel_size=[kernel_size, kernel_size + 2],
        stride=stride,
        dilation=dilation,
        groups=groups,
        rd_channels=max(out_channels // check_positive("reduction", reduction), 32),
        split_input=bool(split_input),
    )


def split_attention(
    in_channels: int,
    out_channels: int | None = None,
    *,
    kernel_size: int = 3,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    radix: int = 2,
) -> nn.Module:
    """Split-Attention: ``radix`` convolutions of parts of the input, mixed channel by channel.

    ResNeSt, https://arxiv.org/abs/2004.08955. Its convolution has cardinality * radix groups. Where the one
    it replaces has groups already, their number stays and the cardinality is what is left: groups / radix.

    Args:
        in_channels, out_channels, kernel_size, stride, dilation, groups: of the convolution it replaces.
        radix: number of splits, at least 2.

    Shapes:
        as of the convolution; in training N must be at least 2, for the attention's batch norm.

    Raises:
        ZooError: a radix below 2, or one that does not divide the channels or groups.
    """
    out_channels = out_channels or in_channels
    whole, unit = (in_channels, "channels") if groups == 1 else (groups, "groups")
    if check_positive("radix", radix) < 2 or whole % radix:
        raise ZooError(f"radix must be at least 2 and divide {whole} {unit}, not {radix}; 2 is the paper's.")
    cardinality = max(groups // radix, 1)
    # timm's own width, a quarter of all splits and at least 32, in whole parts for each cardinal group.
    parts = math.lcm(cardinality, radix)
    width = math.ceil(max(in_channels * radix // 4, 32) / parts) * parts
    return SplitAttn(
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        stride=stride,
        padding=dilation * (kernel_size // 2),
        dilation=dilation,
        groups=cardinality,
        radix=radix,
        rd_channels=width // radix,
        norm_layer=nn.BatchNorm2d,
    )
