"""The table of families: the suffix of a model's name and the layer it stands for."""

from zoo.errors import ZooError, nearest
from zoo.layers.base import DynamicConv2d
from zoo.layers.block_weighted import BlockWeightedConv2d
from zoo.layers.cond_conv import CondConv2d
from zoo.layers.convex import ConvexConv2d
from zoo.layers.dot_product import DotProductConv2d
from zoo.layers.dynamic_convolution import DynamicConvolution2d
from zoo.layers.fc_generated import FCGeneratedConv2d
from zoo.layers.kernel_weighted import KernelWeightedConv2d

#: The static twin every family is compared with has no layer of its own.
STATIC = "static"

FAMILIES: dict[str, type[DynamicConv2d]] = {
    "kw": KernelWeightedConv2d,
    "fgk": FCGeneratedConv2d,
    "dpk": DotProductConv2d,
    "condconv": CondConv2d,
    "dyconv": DynamicConvolution2d,
    "convex": ConvexConv2d,
    "kwb": BlockWeightedConv2d,
}


def family(name: str) -> type[DynamicConv2d]:
    """Look a family's layer up by its suffix.

    Raises:
        ZooError: an unknown suffix.
    """
    if not isinstance(name, str) or name not in FAMILIES:
        raise ZooError(
            f"unknown family {name!r}; choose from {', '.join(FAMILIES)}.{nearest(str(name), FAMILIES)}"
        )
    return FAMILIES[name]
