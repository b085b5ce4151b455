"""FC-generated kernels: a small network turns kernel embeddings and the context into kernels."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.layers import lowerings
from zoo.layers.base import DynamicConv2d
from zoo.layers.geometry import Geometry


class FCGeneratedConv2d(DynamicConv2d):
    """Generate each kernel from its own embedding, gated by the image's context.

        K[n,o,i,:] = project(widen(embedding[o,i]) * sigmoid(gate(g[n])))

    Everything after the gate is linear in the embedding, so the kernels factor: the embedding is a static
    mixing and ``project(widen_v * sigmoid(gate(g)))`` a basis of V kernels a sample, whatever the hidden
    width. Or ``widen(embedding)`` is a static mixing and ``project`` a basis of H kernels that the sample
    only scales: then all convolutions are static, the lowering ``scaled``. A convolution takes V or H
    / (kh*kw) of a static one's multiplies. ``widen`` and ``project`` have no bias: each would be one more
    term, and an embedding column can learn to be constant.

    Args:
        in_channels ... padding_mode, device, dtype: see :class:`DynamicConv2d`.
        embedding_dim: V, the length of each kernel's embedding.
        hidden_dim: H, the width at which embedding and context meet; V by default.

    Parameters:
        embedding (O, V, I/G), widen ``Linear(V, H)``, gate ``Linear(I, H)``, project ``Linear(H, kh*kw)``,
        bias (O).

    Raises:
        ZooError: see :class:`DynamicConv2d`.
    """

    sample_factor = "basis"
    extra_lowerings = ("scaled",)
    holds_static = "nearly"
    sizes: ClassVar[dict[str, int | str]] = {"embedding_dim": 4, "hidden_dim": "embedding_dim"}
    embedding_dim: int
    hidden_dim: int

    def make_parameters(self, per_group: int, like: dict[str, Any]) -> None:
        """Register embedding, widen, gate and project."""
        self.terms = self.embedding_dim
        self.embedding = nn.Parameter(torch.empty(self.out_channels, self.embedding_dim, per_group, **like))
        self.widen = nn.Linear(self.embedding_dim, self.hidden_dim, bias=False, **like)
        self.gate = nn.Linear(self.in_channels, self.hidden_dim, **like)
        self.project = nn.Linear(
            self.hidden_dim, self.kernel_size[0] * self.kernel_size[1], bias=False, **like
        )

    def reset_parameters(self) -> None:
        """Start with gates near 1/2 and kernels of He's variance."""
        super().reset_parameters()
        nn.init.normal_(self.embedding)
        # The sample moves the gates a little at first; a louder start lets strong inputs feed on themselves.
        nn.init.normal_(self.gate.weight, std=0.2 * self.in_channels**-0.5)
        nn.init.zeros_(self.gate.bias)
        self.balance_mean_(self.project.weight, dim=0)
        self.scale_to_he_(self.embedding)

    def factors(
        self, context: Tensor, first: int = 0, last: int | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the static mixing (1, O, V, I/G) and the sample's basis (N, V, kh*kw)."""
        gates = self.gate(context).sigmoid()
        # (V, 1, H) * (1, kh*kw, H): independent of the sample, so an exporter folds it to a constant.
        pairs = self.widen.weight.t().unsqueeze(1) * self.project.weight.unsqueeze(0)
        basis = F.linear(gates, pairs.flatten(0, 1)).unflatten(1, (self.embedding_dim, -1))
        return self.embedding[first:last].unsqueeze(0), basis

    def convolve(self, x: Tensor, context: Tensor, geometry: Geometry, lowering: str) -> Tensor:
        """Convolve as the base does, or with static convolutions over gated copies of the input."""
        if lowering == "scaled":
            gates = self.gate(context).sigmoid()
            mixing = self.widen.weight @ self.embedding
            return lowerings.scaled_basis(
                x, gates, mixing, self.project.weight.t(), self.hidden_dim, geometry
            )
        return self.convolve_factors(x, context, geometry, lowering)

    @torch.jit.unused
    def auto_lowering(self) -> str:
        """Return ``scaled`` while H < kh*kw, else what the base returns."""
        return "scaled" if self.hidden_dim < self.project.out_features else super().auto_lowering()

    @torch.jit.unused
    @torch.no_grad()
    def warm_start_(self, weight: Tensor, bias: Tensor | None = None) -> float:
        """Hold the best approximation of rank min(V, H, kh*kw), exact when that is kh*kw."""
        flat = weight.flatten(2).flatten(0, 1)
        flat = flat.to(torch.promote_types(flat.dtype, torch.float32))  # SVD has no half precision
        _, _, directions = torch.linalg.svd(flat, full_matrices=False)
        rank = min(self.embedding_dim, self.hidden_dim, len(directions))
        directions = directions[:rank]
        self.embedding.zero_()
        held = flat @ directions.t()
        self.embedding[:, :rank] = held.unflatten(0, (weight.shape[0], weight.shape[1])).transpose(1, 2)
        # With every gate at 1/2 the basis is project @ widen / 2; solve that for the wanted directions.
        self.gate.weight.zero_()
        self.gate.bias.zero_()
        widen = nn.init.orthogonal_(flat.new_empty(self.widen.weight.shape))
        self.widen.weight.copy_(widen)
        self.project.weight.copy_(2 * directions.t() @ torch.linalg.pinv(widen[:, :rank]))
        super().warm_start_(weight, bias)
        lost = (held @ directions - flat).norm()
        return 0.0 if rank == flat.shape[1] else float(lost / flat.norm().clamp(min=1e-30))
