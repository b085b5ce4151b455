"""Dynamic convolutions, each a drop-in for ``nn.Conv2d``, and the ways to compute them."""

from zoo.layers.base import DynamicConv2d
from zoo.layers.block_weighted import BlockWeightedConv2d
from zoo.layers.cond_conv import CondConv2d
from zoo.layers.configure import (
    anneal,
    anneals,
    check_lowering,
    common_lowerings,
    constrain,
    dynamic_layers,
    fold,
    lowerings_of,
    lr_scales,
    no_weight_decay,
    set_lowering,
    settle,
    share_context,
)
from zoo.layers.convex import ConvexConv2d
from zoo.layers.dot_product import DotProductConv2d
from zoo.layers.dynamic_convolution import DynamicConvolution2d
from zoo.layers.experts import ExpertsConv2d
from zoo.layers.families import FAMILIES, STATIC, family
from zoo.layers.fc_generated import FCGeneratedConv2d
from zoo.layers.kernel_weighted import KernelWeightedConv2d
from zoo.layers.lowerings import LOWERINGS, Lowering

__all__ = [
    "FAMILIES",
    "LOWERINGS",
    "STATIC",
    "BlockWeightedConv2d",
    "CondConv2d",
    "ConvexConv2d",
    "DotProductConv2d",
    "DynamicConv2d",
    "DynamicConvolution2d",
    "ExpertsConv2d",
    "FCGeneratedConv2d",
    "KernelWeightedConv2d",
    "Lowering",
    "anneal",
    "anneals",
    "check_lowering",
    "common_lowerings",
    "constrain",
    "dynamic_layers",
    "family",
    "fold",
    "lowerings_of",
    "lr_scales",
    "no_weight_decay",
    "set_lowering",
    "settle",
    "share_context",
]
