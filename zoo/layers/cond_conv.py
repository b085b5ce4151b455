"""CondConv: experts weighted by a sigmoid of the context."""

from typing import Any

import torch
from torch import Tensor, nn

from zoo.layers.experts import ExpertsConv2d


class CondConv2d(ExpertsConv2d):
    """Weigh every expert by a sigmoid of its own linear view of the image's context.

        K[n,o,i,:] = sum_e sigmoid(route(g[n]))_e * experts[e,o,i,:]

    CondConv: Conditionally Parameterized Convolutions for Efficient Inference,
    https://arxiv.org/abs/1904.04971. The paper has 8 experts; 4 are the default here, as for the other
    families of experts.

    Args:
        in_channels ... padding_mode, device, dtype: see :class:`DynamicConv2d`.
        num_experts: E.

    Parameters:
        experts (E, O, kh*kw, I/G), route ``Linear(I, E)``, bias (O).

    Raises:
        ZooError: see :class:`DynamicConv2d`.
    """

    def make_routing(self, like: dict[str, Any]) -> None:
        """Register route."""
        self.route = nn.Linear(self.in_channels, self.num_experts, **like)

    @torch.jit.unused
    def reset_routing(self) -> None:
        """Start with routing near 1/2."""
        # The sample moves the routing little at first; a louder start lets strong inputs feed on themselves.
        nn.init.normal_(self.route.weight, std=0.2 * self.in_channels**-0.5)
        nn.init.zeros_(self.route.bias)

    def routing(self, context: Tensor) -> Tensor:
        """Return sigmoids (N, E)."""
        return self.route(context).sigmoid()

    @torch.jit.unused
    def neutral_routing_(self) -> float:
        """Set every sigmoid to 1/2."""
        self.route.weight.zero_()
        self.route.bias.zero_()
        return 0.5
