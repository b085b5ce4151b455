"""Kernel-weighted convolution: every static kernel scaled by a gate that the image opens."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.layers import lowerings
from zoo.layers.base import DynamicConv2d
from zoo.layers.geometry import Geometry


class KernelWeightedConv2d(DynamicConv2d):
    """Weigh each kernel of a static bank by how well the image's context matches that kernel's vector.

        K[n,o,i,:] = sigmoid(vectors[o,i] . reduce(g[n])) * weight[o,i,:]

    The mixing depends on the sample; the basis is the identity. With ``vectors`` at zero every gate is 1/2,
    so ``weight = 2 * W`` is the static convolution W exactly. Where a convolution is depthwise with
    as many outputs as inputs, a gate may as well scale its channel: ``scaled`` is a static convolution.

    Args:
        in_channels ... padding_mode, device, dtype: see :class:`DynamicConv2d`.
        vector_dim: V, the length of each kernel's vector and of the reduced context.

    Parameters:
        weight (O, kh*kw, I/G), vectors (O, I/G, V), reduce ``Linear(I, V)``, bias (O).

    Raises:
        ZooError: see :class:`DynamicConv2d`.
    """

    sample_factor = "mixing"
    identity_basis = True
    no_weight_decay_names = ("vectors",)
    holds_static = "exactly"
    sizes: ClassVar[dict[str, int | str]] = {"vector_dim": 4}
    vector_dim: int

    def make_parameters(self, per_group: int, like: dict[str, Any]) -> None:
        """Register weight, vectors and reduce."""
        self.terms = self.kernel_size[0] * self.kernel_size[1]
        if self.one_to_one:
            self.extra_lowerings = ("scaled",)
        self.weight = nn.Parameter(torch.empty(self.out_channels, self.terms, per_group, **like))
        gates = self.gates_of(per_group)
        self.vectors = nn.Parameter(torch.empty(self.out_channels, gates, self.vector_dim, **like))
        self.reduce = nn.Linear(self.in_channels, self.vector_dim, **like)

    @torch.jit.unused
    def gates_of(self, per_group: int) -> int:
        """Return how many gates the kernels of an output channel have; ``per_group`` is I/G."""
        return per_group

    @torch.jit.unused
    def lr_scales(self) -> dict[str, float]:
        """Let the vectors learn faster.

        Adam's steps are as long whatever the parameter: at a rate that suits kernels, whose numbers are some
        hundredths, gates that start at 1/2 would stay there.
        """
        return {"vectors": 5.0}

    def reset_parameters(self) -> None:
        """Start with gates near 1/2 and kernels of He's variance."""
        super().reset_parameters()
        nn.init.normal_(self.weight)
        nn.init.normal_(self.vectors, std=0.1)
        self.scale_to_he_(self.weight)

    def gates(self, context: Tensor, first: int = 0, last: int | None = None) -> Tensor:
        """Return the gates, one for each vector: (N, O, I/G), or those of a slice of the output channels."""
        return self._row_of_gates(context, first, last).unflatten(1, (-1, self.vectors.shape[1]))

    def _row_of_gates(self, context: Tensor, first: int = 0, last: int | None = None) -> Tensor:
        """Return the gates as they are made, (N, O * I/G)."""
        return F.linear(self.reduce(context), self.vectors[first:last].flatten(0, 1)).sigmoid()

    def factors(
        self, context: Tensor, first: int = 0, last: int | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Gate the static kernels: mixing (N, O, kh*kw, I/G), identity basis."""
        gates = self.gates(context, first, last).unsqueeze(2)
        # Under autocast gates have half the bits, and the kernels of a batch are too large for more.
        return gates * self.weight[first:last].to(gates.dtype), None

    def convolve(self, x: Tensor, context: Tensor, geometry: Geometry, lowering: str) -> Tensor:
        """Convolve as the base does, or gate the input channels of a depthwise convolution."""
        if lowering == "scaled":
            gates = self._row_of_gates(context)
            return lowerings.scaled(x, gates, self.weight.unsqueeze(0), 1, geometry)
        return self.convolve_factors(x, context, geometry, lowering)

    @torch.jit.unused
    def auto_lowering(self) -> str:
        """Return ``scaled`` where there is one, else what the base returns."""
        return "scaled" if "scaled" in self.extra_lowerings else super().auto_lowering()

    @torch.jit.unused
    def training_lowering(self) -> str:
        """Return ``scaled`` where there is one, which is a single term here, else what the base returns."""
        return "scaled" if "scaled" in self.extra_lowerings else super().training_lowering()

    @torch.jit.unused
    @torch.no_grad()
    def warm_start_(self, weight: Tensor, bias: Tensor | None = None) -> float:
        """Hold the static kernel exactly: all gates at 1/2, the weight doubled."""
        self.vectors.zero_()
        self.weight.copy_(2 * weight.flatten(2).transpose(1, 2))
        super().warm_start_(weight, bias)
        return 0.0
