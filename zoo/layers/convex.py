"""Convex combination of parallel static convolutions, which folds into one."""

from typing import Any

import torch
from torch import Tensor, nn

from zoo.layers.experts import ExpertsConv2d


class ConvexConv2d(ExpertsConv2d):
    """Weigh parallel static convolutions by a learned softmax; no image changes the kernels.

        K[o,i,:] = sum_e softmax(logits)_e * experts[e,o,i,:]

    What experts bring without a context: the static control of the other families. A sum of convolutions is
    one convolution, so ``fold`` deploys it as a plain ``nn.Conv2d`` (structural re-parameterisation, RepVGG,
    https://arxiv.org/abs/2101.03697).

    Args:
        in_channels ... padding_mode, device, dtype: see :class:`DynamicConv2d`.
        num_experts: E, the number of parallel convolutions.

    Parameters:
        experts (E, O, kh*kw, I/G), logits (E), bias (O).

    Raises:
        ZooError: see :class:`DynamicConv2d`.
    """

    sample_factor = "none"
    routing_sums_to_one = True
    extra_lowerings = ("experts", "fold")
    no_weight_decay_names = ("logits",)

    def make_routing(self, like: dict[str, Any]) -> None:
        """Register logits."""
        self.logits = nn.Parameter(torch.empty(self.num_experts, **like))

    @torch.jit.unused
    def reset_routing(self) -> None:
        """Start with even weights."""
        nn.init.zeros_(self.logits)

    def routing(self, context: Tensor) -> Tensor:
        """Return the learned weights (1, E), whatever the context."""
        return self.logits.softmax(dim=0).unsqueeze(0)

    @torch.jit.unused
    def auto_lowering(self) -> str:
        """Return ``fold``, the one that leaves a plain convolution."""
        return "fold"

    @torch.jit.unused
    def neutral_routing_(self) -> float:
        """Give every convolution the same weight."""
        self.logits.zero_()
        return 1 / self.num_experts
