"""Block-weighted convolution: kernel weighting whose gates are shared by blocks of input channels."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.layers import lowerings
from zoo.layers.geometry import Geometry
from zoo.layers.kernel_weighted import KernelWeightedConv2d


class BlockWeightedConv2d(KernelWeightedConv2d):
    """Weigh blocks of kernels, those of neighbouring input channels, by one gate each.

        K[n,o,i,:] = sigmoid(vectors[o,b] . reduce(g[n])) * weight[o,i,:],      b = i // (I/G / B)

    With a block for each input channel this is :class:`KernelWeightedConv2d`; with a single one the gate
    leaves the sum over i, and a static convolution's outputs are excited. In between, each block is a static
    convolution whose output is scaled: no kernels are made for an image, and ``scaled`` takes a static
    convolution's multiplies and B passes over its output. WeightNet (https://arxiv.org/abs/2007.11823) shares
    the gates of its kernels by groups, too.

    Args:
        in_channels ... padding_mode, device, dtype: see :class:`DynamicConv2d`.
        vector_dim: V, the length of each block's vector and of the reduced context.
        blocks: B, the number of blocks; the greatest common divisor with I/G is taken, so that all are of
            one width.

    Parameters:
        weight (O, kh*kw, I/G), vectors (O, B, V), reduce ``Linear(I, V)``, bias (O).

    Raises:
        ZooError: see :class:`DynamicConv2d`.
    """

    extra_lowerings = ("scaled",)
    sizes: ClassVar[dict[str, int | str]] = {"vector_dim": 4, "blocks": 4}
    blocks: int

    def make_parameters(self, per_group: int, like: dict[str, Any]) -> None:
        """Register weight, vectors and reduce."""
        self.blocks = math.gcd(self.blocks, per_group)
        super().make_parameters(per_group, like)

    @torch.jit.unused
    def gates_of(self, per_group: int) -> int:
        """Return the number of blocks."""
        return self.blocks

    def factors(
        self, context: Tensor, first: int = 0, last: int | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Gate the blocks of static kernels: mixing (N, O, kh*kw, I/G), identity basis."""
        gates = self.gates(context, first, last)  # (N, O, B)
        weight = self.weight[first:last].to(gates.dtype).unflatten(2, (self.blocks, -1))
        return (gates.unsqueeze(2).unsqueeze(4) * weight).flatten(3), None

    def convolve(self, x: Tensor, context: Tensor, geometry: Geometry, lowering: str) -> Tensor:
        """Convolve as the base does, or block by block, scaling what each adds to the output.

        A depthwise convolution with as many outputs as inputs is scaled as kw scales it.
        """
        if lowering == "scaled":
            # Turned before the product, where it is a constant once exported, and not after.
            vectors = self.vectors.transpose(0, 1).flatten(0, 1)
            scales = F.linear(self.reduce(context), vectors).sigmoid()
            if self.one_to_one:
                return lowerings.scaled(x, scales, self.weight.unsqueeze(0), 1, geometry)
            return lowerings.scaled_blocks(x, scales, self.weight, self.blocks, geometry)
        return self.convolve_factors(x, context, geometry, lowering)
