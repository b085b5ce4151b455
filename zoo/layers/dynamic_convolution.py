"""Dynamic Convolution: attention over experts, from a squeezed context."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo.layers.experts import ExpertsConv2d


class DynamicConvolution2d(ExpertsConv2d):
    """Weigh the experts by a softmax that a small MLP makes of the image's context.

        K[n,o,i,:] = sum_e softmax(route(relu(squeeze(g[n]))) / T)_e * experts[e,o,i,:]

    Dynamic Convolution: Attention over Convolution Kernels, https://arxiv.org/abs/1912.03458. A high
    temperature T lets all experts learn early in training: :meth:`anneal` brings it from
    ``start_temperature`` down to 1. In eval mode T is always 1.

    Args:
        in_channels ... padding_mode, device, dtype: see :class:`DynamicConv2d`.
        num_experts: E.
        reduction: the MLP's hidden width is ``in_channels // reduction``, at least 1.
        start_temperature: T where annealing begins.

    Parameters:
        experts (E, O, kh*kw, I/G), squeeze ``Linear(I, I/reduction)``, route ``Linear(I/reduction, E)``,
        bias (O).

    Raises:
        ZooError: see :class:`DynamicConv2d`.
    """

    sizes: ClassVar[dict[str, int | str]] = {"num_experts": 4, "reduction": 4, "start_temperature": 30}
    routing_sums_to_one = True
    settled_names = ("slices", "middle_axis")
    reduction: int
    start_temperature: int

    def make_routing(self, like: dict[str, Any]) -> None:
        """Register squeeze and route."""
        hidden = max(1, self.in_channels // self.reduction)
        self.squeeze = nn.Linear(self.in_channels, hidden, **like)
        self.route = nn.Linear(hidden, self.num_experts, **like)
        self.temperature = 1.0
        self.middle_axis = False

    @torch.jit.unused
    def reset_routing(self) -> None:
        """Start with almost even routing."""
        for linear, std in ((self.squeeze, 1.0), (self.route, 0.2)):
            nn.init.normal_(linear.weight, std=std * linear.in_features**-0.5)
            nn.init.zeros_(linear.bias)

    def routing(self, context: Tensor) -> Tensor:
        """Return attention over the experts (N, E)."""
        logits = self.route(self.squeeze(context).relu())
        temperature = self.temperature if self.training else 1.0
        logits = logits / temperature
        if self.middle_axis:
            return logits.unsqueeze(2).softmax(dim=1).squeeze(2)
        return logits.softmax(dim=1)

    @torch.jit.unused
    def settle_(self, own_softmax: bool = False) -> None:
        """Slice, and keep a runtime that has its own softmax from taking the routing for attention.

        OpenVINO does so with a product, a softmax along the last axis and another product, and is slow to sum
        the experts, which are the values then.
        """
        super().settle_(own_softmax)
        self.middle_axis = own_softmax

    @torch.jit.unused
    def anneal(self, progress: float) -> None:
        """Bring the temperature linearly from ``start_temperature`` (progress 0) to 1 (progress 1)."""
        self.temperature = float(self.start_temperature + (1 - self.start_temperature) * progress)

    @torch.jit.unused
    def neutral_routing_(self) -> float:
        """Give every expert the same attention."""
        self.route.weight.zero_()
        self.route.bias.zero_()
        return 1 / self.num_experts
