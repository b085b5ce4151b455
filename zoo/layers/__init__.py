"""Dynamic convolutions, each a drop-in for ``nn.Conv2d``, and the ways to compute them."""

from zoo.layers.base import DynamicConv2d
from zoo.layers.configure import check_lowering, set_lowering, share_context
from zoo.layers.dot_product import DotProductConv2d
from zoo.layers.families import FAMILIES, STATIC, family
from zoo.layers.fc_generated import FCGeneratedConv2d
from zoo.layers.kernel_weighted import KernelWeightedConv2d
from zoo.layers.lowerings import LOWERINGS, Lowering

__all__ = [
    "FAMILIES",
    "LOWERINGS",
    "STATIC",
    "DotProductConv2d",
    "DynamicConv2d",
    "FCGeneratedConv2d",
    "KernelWeightedConv2d",
    "Lowering",
    "check_lowering",
    "family",
    "set_lowering",
    "share_context",
]
