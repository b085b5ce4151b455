"""Convolutions whose kernels are a weighted sum of a few experts."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from zoo.layers import lowerings
from zoo.layers.base import DynamicConv2d
from zoo.layers.geometry import Geometry


class ExpertsConv2d(DynamicConv2d):
    """Sum ``num_experts`` static kernels with routing weights; a family subclasses this and routes.

        K[n,o,i,:] = sum_e routing(g[n])[e] * experts[e,o,i,:]

    The mixing depends on the sample through the routing alone; the basis is the identity. Besides the common
    lowerings there is ``experts``: every expert as a static convolution of the weighted input.

    Args:
        in_channels ... padding_mode, device, dtype: see :class:`DynamicConv2d`.
        num_experts: E.

    Parameters:
        experts (E, O, kh*kw, I/G), bias (O), and what the family routes with.

    Raises:
        ZooError: see :class:`DynamicConv2d`.
    """

    sample_factor: Literal["mixing", "none"] = "mixing"
    identity_basis = True
    holds_static = "exactly"
    extra_lowerings: tuple[str, ...] = ("experts",)
    sizes: ClassVar[dict[str, int | str]] = {"num_experts": 4}
    #: Whether the routing of a sample sums to one, which leaves one expert without a weight of its own.
    routing_sums_to_one: ClassVar[bool] = False
    __constants__ = ("sample_factor", "routing_sums_to_one")
    num_experts: int

    def make_parameters(self, per_group: int, like: dict[str, Any]) -> None:
        """Register experts and the family's routing."""
        self.terms = self.kernel_size[0] * self.kernel_size[1]
        self.experts = nn.Parameter(
            torch.empty(self.num_experts, self.out_channels, self.terms, per_group, **like)
        )
        self.make_routing(like)

    @torch.jit.unused
    def make_routing(self, like: dict[str, Any]) -> None:
        """Register the parameters that the routing needs; ``like`` is device and dtype, to pass on."""
        raise NotImplementedError

    @torch.jit.unused
    def reset_routing(self) -> None:
        """Initialise what :meth:`make_routing` registered."""
        raise NotImplementedError

    @torch.jit.unused
    def neutral_routing_(self) -> float:
        """Make the routing the same for every expert and sample, and return that weight."""
        raise NotImplementedError

    def routing(self, context: Tensor) -> Tensor:
        """Return the weight of every expert, (N or 1, E), for context (N, I)."""
        raise NotImplementedError

    def reset_parameters(self) -> None:
        """Start with kernels of He's variance."""
        super().reset_parameters()
        self.reset_routing()
        nn.init.normal_(self.experts)
        self.scale_to_he_(self.experts)

    def factors(
        self, context: Tensor, first: int = 0, last: int | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Sum the routed experts: mixing (N or 1, O, kh*kw, I/G), identity basis."""
        experts = self.experts[:, first:last]
        kernels = self.routing(context) @ experts.flatten(1)
        return kernels.unflatten(1, (-1, experts.shape[2], experts.shape[3])), None

    def convolve(self, x: Tensor, context: Tensor, geometry: Geometry, lowering: str) -> Tensor:
        """Convolve as the base does, or with every expert, weighted."""
        if lowering == "experts":
            shares = self.routing(context)
            if not self.routing_sums_to_one or self.num_experts == 1:
                return lowerings.scaled(x, shares, self.experts, self.num_experts, geometry)
            first, apart = self.experts[0], self.experts[1:] - self.experts[:1]
            y = lowerings.scaled(x, shares[:, 1:], apart, self.num_experts - 1, geometry)
            weight = lowerings.to_conv_weight(first.unsqueeze(0), geometry.kernel_size)[0]
            return y + lowerings.static_conv(x, weight, geometry, geometry.groups)
        return self.convolve_factors(x, context, geometry, lowering)

    @torch.jit.unused
    def auto_lowering(self) -> str:
        """Return ``experts`` for a depthwise convolution, else what the base returns."""
        return "experts" if self.groups == self.in_channels else super().auto_lowering()

    @torch.jit.unused
    def training_lowering(self) -> str:
        """Return ``experts`` where channels are many: a batch's kernels are larger than its maps there."""
        many = min(self.in_channels // self.groups, self.out_channels) >= 512
        return "experts" if many and self.sample_factor != "none" else super().training_lowering()

    @torch.jit.unused
    @torch.no_grad()
    def warm_start_(self, weight: Tensor, bias: Tensor | None = None) -> float:
        """Hold the static kernel exactly: experts around it whose differences cancel, routed evenly."""
        share = self.neutral_routing_()
        static = weight.flatten(2).transpose(1, 2)
        # Equal experts would all learn the same; these differ by a tenth of the kernel's size.
        apart = torch.randn_like(self.experts) * static.square().mean().sqrt() / 10
        self.experts.copy_(static / (share * self.num_experts) + apart - apart.mean(dim=0))
        super().warm_start_(weight, bias)
        return 0.0
