"""Kernel-weighted convolution: every static kernel scaled by a gate that the image opens."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import ZooError
from zoo.layers.base import DynamicConv2d


class KernelWeightedConv2d(DynamicConv2d):
    """Weigh each kernel of a static bank by how well the image's context matches that kernel's vector.

        K[n,o,i,:] = sigmoid(vectors[o,i] . reduce(g[n])) * weight[o,i,:]

    The mixing depends on the sample; the basis is the identity. With ``vectors`` at zero every gate is 1/2,
    so ``weight = 2 * W`` is the static convolution W exactly.

    Args:
        in_channels ... padding_mode: as for ``nn.Conv2d``.
        vector_dim: V, the length of each kernel's vector and of the reduced context.

    Parameters:
        weight (O, kh*kw, I/G), vectors (O, I/G, V), reduce ``Linear(I, V)``, bias (O).

    Raises:
        ZooError: see :class:`DynamicConv2d`; a ``vector_dim`` below 1.
    """

    sample_factor = "mixing"
    no_weight_decay_names = ("vectors",)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        vector_dim: int = 9,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        if vector_dim < 1:
            raise ZooError(f"vector_dim must be at least 1, not {vector_dim}.")
        like = {"device": device, "dtype": dtype}
        size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
            terms=size[0] * size[1], **like,
        )  # fmt: skip
        self.vector_dim = vector_dim
        self.weight = nn.Parameter(torch.empty(out_channels, self.terms, in_channels // groups, **like))
        self.vectors = nn.Parameter(torch.empty(out_channels, in_channels // groups, vector_dim, **like))
        self.reduce = nn.Linear(in_channels, vector_dim, **like)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with gates near 1/2 and kernels of He's variance."""
        nn.init.normal_(self.weight)
        nn.init.normal_(self.vectors, std=0.1)
        self.scale_to_he_(self.weight)

    def factors(self, context: Tensor) -> tuple[Tensor, Tensor | None]:
        """Gate the static kernels: mixing (N, O, kh*kw, I/G), identity basis."""
        gates = F.linear(self.reduce(context), self.vectors.flatten(0, 1)).sigmoid()
        gates = gates.unflatten(1, (self.out_channels, 1, -1))
        return gates * self.weight, None

    @torch.jit.unused
    @torch.no_grad()
    def warm_start_(self, weight: Tensor, bias: Tensor | None = None) -> float:
        """Hold the static kernel exactly: all gates at 1/2, the weight doubled."""
        self.vectors.zero_()
        self.weight.copy_(2 * weight.flatten(2).transpose(1, 2))
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)
        return 0.0
