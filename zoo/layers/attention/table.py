"""The table of attention modules that the families of dynamic kernels are compared with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from torch import nn

from zoo.errors import ZooError, nearest
from zoo.layers.attention import from_timm
from zoo.layers.attention.bam import BottleneckAttentionModule
from zoo.layers.attention.channel_gate import ChannelGate
from zoo.layers.attention.dual import DualAttention
from zoo.layers.attention.gather_excite import GatherExcite
from zoo.layers.attention.gsop import SecondOrderPooling
from zoo.layers.attention.mhsa import MultiHeadSelfAttention2d
from zoo.layers.attention.sagan import SAGANAttention


@dataclass(frozen=True)
class Attention:
    """One row of the table.

    Args:
        make: builds the module. At a gate or a stage it takes ``(channels, **args)``, in the place of a
            convolution ``(in_channels, out_channels, stride=, **args)`` and what ``geometry`` names; with
            ``image_size`` in ``args``, also ``feat_size``.
        place: ``"gate"``: on the residual branch within each block, where Squeeze-Excitation goes;
            ``"stage"``: behind a stage; ``"conv"``: instead of the spatial convolutions.
        paper: arXiv id.
        summary: one line for help texts.
        args: the module's own arguments with their defaults. ``image_size`` is the height and width of the
            images that parameters which belong to positions are made for; the module takes other sizes too.
        stages: the default ones, counted from 0 or from the end; None for all.
        geometry: what ``make`` takes of the convolution it replaces besides channels and stride.
        own_norm: the module ends in a norm and an activation of its own, so the block's norm behind it goes,
            and a convolution that ends a residual branch, with no activation behind it, stays.
    """

    make: Callable[..., nn.Module]
    place: Literal["gate", "stage", "conv"]
    paper: str
    summary: str
    args: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[int, ...] | None = None
    geometry: tuple[str, ...] = ()
    own_norm: bool = False


_GEOMETRY = ("kernel_size", "dilation", "groups")

ATTENTION: dict[str, Attention] = {
    "se": Attention(
        from_timm.squeeze_excite,
        "gate",
        "arXiv:1709.01507",
        "Squeeze-Excitation: gates from the channels' averages, through a bottleneck",
        {"reduction": 16},
    ),
    "se_var1": Attention(
        partial(ChannelGate, weighted=False),
        "gate",
        "arXiv:1910.03151",
        "SE-Var1: the sigmoid of a channel's average gates it; no parameters",
    ),
    "se_var2": Attention(
        partial(ChannelGate, weighted=True),
        "gate",
        "arXiv:1910.03151",
        "SE-Var2: one weight a channel before the sigmoid",
    ),
    "se_var3": Attention(
        from_timm.effective_squeeze_excite,
        "gate",
        "arXiv:1910.03151",
        "SE-Var3, effective SE: one full layer before the sigmoid, no bottleneck",
    ),
    "eca": Attention(
        from_timm.efficient_channel_attention,
        "gate",
        "arXiv:1910.03151",
        "Efficient Channel Attention: a short convolution along the channels' averages",
        {"kernel_size": 0},
    ),
    "cbam": Attention(
        from_timm.convolutional_block_attention,
        "gate",
        "arXiv:1807.06521",
        "CBAM: a channel gate, then a spatial one, each from average and maximum",
        {"reduction": 16, "kernel_size": 7},
    ),
    "bam": Attention(
        BottleneckAttentionModule,
        "stage",
        "arXiv:1807.06514",
        "BAM: channel and dilated spatial branch added; the paper leaves out the last stage",
        {"reduction": 16, "dilation": 4},
    ),
    "ge_minus": Attention(
        GatherExcite,
        "gate",
        "arXiv:1810.12348",
        "Gather-Excite theta-: averages over an extent (2, 4, 8; 0: global, the same as se_var1)",
        {"extent": 0},
    ),
    "ge": Attention(
        partial(GatherExcite, learned=True),
        "gate",
        "arXiv:1810.12348",
        "Gather-Excite theta: depthwise convolutions gather an extent (2, 4, 8; 0: global)",
        {"extent": 0, "image_size": 32},
    ),
    "ge_plus": Attention(
        partial(GatherExcite, learned=True),
        "gate",
        "arXiv:1810.12348",
        "Gather-Excite theta+: as theta, then a bottleneck as in SE",
        {"extent": 0, "reduction": 16, "image_size": 32},
    ),
    "sk": Attention(
        from_timm.selective_kernel,
        "conv",
        "arXiv:1903.06586",
        "Selective Kernel: two kernel sizes mixed channel by channel",
        {"reduction": 16, "split_input": False},
        geometry=_GEOMETRY,
        own_norm=True,
    ),
    "splat": Attention(
        from_timm.split_attention,
        "conv",
        "arXiv:2004.08955",
        "Split-Attention (ResNeSt): convolutions of parts of the input, mixed channel by channel",
        {"radix": 2},
        geometry=_GEOMETRY,
        own_norm=True,
    ),
    "mhsa": Attention(
        MultiHeadSelfAttention2d,
        "conv",
        "arXiv:2101.11605",
        "multi-head self-attention with relative positions (BoTNet) in the last stage",
        {"heads": 4, "image_size": 32},
        stages=(-1,),
    ),
    "nonlocal": Attention(
        from_timm.non_local,
        "stage",
        "arXiv:1711.07971",
        "non-local block: every pixel attends to all, behind the last stage but one",
        {"reduction": 2},
        stages=(-2,),
    ),
    "sagan": Attention(
        SAGANAttention,
        "stage",
        "arXiv:1805.08318",
        "SAGAN's self-attention, a residual whose gamma starts at 0, behind the last stage but one",
        {"reduction": 8},
        stages=(-2,),
    ),
    "dual": Attention(
        DualAttention,
        "stage",
        "arXiv:1809.02983",
        "DANet: attention over positions and over channels, behind the last stage",
        {"reduction": 8},
        stages=(-1,),
    ),
    "gsop": Attention(
        SecondOrderPooling,
        "stage",
        "arXiv:1811.12006",
        "GSoP: channel gates from the covariance of the channels, behind each stage",
        {"covariance_dim": 128},
    ),
}


def attention(name: str) -> Attention:
    """Look a row up by its name.

    Raises:
        ZooError: an unknown name.
    """
    if name not in ATTENTION:
        raise ZooError(
            f"unknown attention {name!r}; choose from {', '.join(ATTENTION)}.{nearest(name, ATTENTION)}"
        )
    return ATTENTION[name]


def complete_args(name: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row's own arguments, the defaults replaced by ``args``.

    Raises:
        ZooError: an unknown name, or an argument that the row does not have.
    """
    own = attention(name).args
    if unknown := [key for key in args if key not in own]:
        known = ", ".join(own) or "none"
        raise ZooError(
            f"{name} has no argument {unknown[0]!r}; its own are {known}.{nearest(unknown[0], own)}"
        )
    return {**own, **args}
