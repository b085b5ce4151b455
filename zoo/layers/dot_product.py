"""Dot-product kernels: attention over a small bank of kernels that all channel pairs share."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo.layers import lowerings
from zoo.layers.base import DynamicConv2d
from zoo.layers.geometry import Geometry


class DotProductConv2d(DynamicConv2d):
    """Let every pair of channels attend, given the image's context, to a bank of M kernels.

        q[n,o,i]   = in_queries[i] * out_queries[o] * tanh(reduce(g[n]))
        K[n,o,i,:] = softmax_m(q[n,o,i] . keys[m] / sqrt(D)) @ bank

    This is attention with the bank as values: the mixing depends on the sample, the basis is static. The tanh
    bounds the logits whatever the image, and training keeps that bound small (:meth:`constrain_`), so that a
    deployed softmax needs no pass for the maximum. It sums to one besides, so that the mean of the bank can
    be set apart, one term less::

        K = mean(bank) + sum_{m>0} (softmax_m - 1/M) * (bank[m] - bank[0])

    The layer has O(I + O) parameters instead of O(I * O), and with M < kh*kw it takes M / (kh*kw) of a static
    convolution's multiplies.

    Args:
        in_channels ... padding_mode, device, dtype: see :class:`DynamicConv2d`.
        bank_size: M, the number of kernels in the bank.
        key_dim: D, the length of queries and keys.

    Parameters:
        bank (M, kh*kw), keys (M, D), in_queries (I/G, D), out_queries (O, D), reduce ``Linear(I, D)``,
        bias (O).

    Raises:
        ZooError: see :class:`DynamicConv2d`.
    """

    sample_factor = "mixing"
    settled_names = ("slices", "bounded")
    slice_numbers = 1 << 17  # making the mixing passes over it several times
    no_weight_decay_names = ("bank", "keys", "in_queries", "out_queries")
    # Kept by training. Exponentials overflow at 88, but attention saturates long before: if logits may
    # come to 40, a pair of channels gives nine tenths of it to one kernel, and the tanh is 1 whatever the
    # image. A context's numbers are about a half, all of one sign: short rows leave the tanh a slope.
    largest_logit: ClassVar[float] = 16.0
    longest_reduce: ClassVar[float] = 2.5  # a row's length times the root of I
    sizes: ClassVar[dict[str, int | str]] = {"bank_size": 4, "key_dim": 8}
    bank_size: int
    key_dim: int

    def make_parameters(self, per_group: int, like: dict[str, Any]) -> None:
        """Register bank, keys, in_queries, out_queries and reduce."""
        self.terms = self.bank_size
        self.bounded = False
        if self.one_to_one:
            self.extra_lowerings = ("scaled",)
        self.bank = nn.Parameter(
            torch.empty(self.bank_size, self.kernel_size[0] * self.kernel_size[1], **like)
        )
        self.keys = nn.Parameter(torch.empty(self.bank_size, self.key_dim, **like))
        self.in_queries = nn.Parameter(torch.empty(per_group, self.key_dim, **like))
        self.out_queries = nn.Parameter(torch.empty(self.out_channels, self.key_dim, **like))
        self.reduce = nn.Linear(self.in_channels, self.key_dim, **like)

    @torch.jit.unused
    def lr_scales(self) -> dict[str, float]:
        """Let queries and keys learn faster, and what reduces the context slower.

        Adam's steps are as long whatever the parameter. At a rate that suits kernels, whose numbers are some
        hundredths, queries and keys of unit variance would stay where they started; and as a context has no
        negative numbers, a step of a whole row moves its product by I times as much.
        """
        queries = dict.fromkeys(("keys", "in_queries", "out_queries"), 20.0)
        return {**queries, "reduce.weight": min(1.0, 8 / self.in_channels)}

    def reset_parameters(self) -> None:
        """Start with logits of unit variance, a bank without a common kernel, and He's variance."""
        super().reset_parameters()
        nn.init.normal_(self.bank)
        nn.init.normal_(self.in_queries)
        nn.init.normal_(self.out_queries)
        # Keys of one length (while M <= D): a longer one would draw every pair of channels' attention alike.
        keys = nn.init.orthogonal_(torch.empty(self.keys.shape), gain=self.key_dim**0.5)
        with torch.no_grad():
            self.keys.copy_(keys)  # through fp32: QR has no half precision
        # The sample moves the logits a little at first; a louder start lets strong inputs feed on themselves.
        nn.init.normal_(self.reduce.weight, std=0.05 * self.in_channels**-0.5)
        nn.init.ones_(self.reduce.bias)
        with torch.no_grad():
            # A kernel common to the whole bank would reach every output alike and drown the differences.
            if self.bank_size > 1:
                self.bank.sub_(self.bank.mean(dim=0))
        self.balance_mean_(self.bank, dim=1)
        self.scale_to_he_(self.bank)

    def factors(
        self, context: Tensor, first: int = 0, last: int | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the sample's attention (N, O, M, I/G) and the bank as basis (1, M, kh*kw).

        Once the mean is set apart, by how much the attention to all kernels but the first exceeds an even
        share, and how they differ from the first: M - 1 terms.
        """
        # Independent of the sample, so an exporter folds it to one constant.
        keys: Tensor = self.keys
        bank: Tensor = self.bank
        if self.bounded:
            keys, bank = keys[1:] - keys[:1], bank[1:] - bank[:1]
        static = self.out_queries[first:last].unsqueeze(1) * keys.unsqueeze(0) * self.key_dim**-0.5
        # Runtimes are slow to add up a few numbers that lie side by side: where there is no long axis behind
        # the kernels, the outputs go there meanwhile.
        depthwise = self.groups == self.in_channels
        axis = 1 if depthwise else 2
        sample = self.reduce(context).tanh()
        if depthwise:
            static = (static * self.in_queries).transpose(0, 1)  # a single in-query is part of the constant
            logits = (sample @ static.flatten(0, 1).t()).unflatten(1, (self.terms, -1))
        else:
            # The sample joins the shorter factor: a product with the static one on the right needs no copies.
            queries = static.flatten(0, 1) * sample.unsqueeze(1)
            logits = (queries @ self.in_queries.t()).unflatten(1, (-1, self.terms))
        if self.bounded:
            # In fp16 exponentials would overflow at 11.
            shares = (logits.float() if logits.dtype == torch.float16 else logits).exp()
            shares = shares * (shares.sum(dim=axis, keepdim=True) + 1).reciprocal()
            # With whole shares the terms would add up to nearly minus the first kernel over all channels, and
            # what that and the first kernel leave of each other would have lost a digit.
            mixing = (shares - 1 / self.bank_size).to(logits.dtype)
        else:
            mixing = logits.softmax(dim=axis)
        if depthwise:
            # Only now: onnxruntime goes through a last axis of one number by number.
            mixing = mixing.unsqueeze(3).transpose(1, 2)
        return mixing, bank.unsqueeze(0)

    def kernel_apart(self) -> Tensor | None:
        """Return the mean of the bank where it is set apart."""
        return self.bank.mean(dim=0) if self.bounded else None

    def convolve(self, x: Tensor, context: Tensor, geometry: Geometry, lowering: str) -> Tensor:
        """Convolve as the base does, or scale the input channels of a depthwise convolution."""
        if lowering == "scaled":
            mixing, bank = self.factors(context)
            assert bank is not None
            weight = bank[0].unsqueeze(1).unsqueeze(3).expand(-1, self.out_channels, -1, -1)
            scales = mixing.transpose(1, 2).flatten(1)
            y = lowerings.scaled(x, scales, weight, self.terms, geometry)
            return self.add_apart(y, x, geometry)
        return self.convolve_factors(x, context, geometry, lowering)

    @torch.jit.unused
    @torch.no_grad()
    def constrain_(self) -> None:
        """Shorten what would saturate the softmax or the tanh.

        In-queries, until no logit can lie more than ``largest_logit`` from the first key's; and rows of
        ``reduce``, by up to a hundredth a call, so that a network whose rows are longer can follow.
        """
        norms = self.reduce.weight.norm(dim=1, keepdim=True) * self.in_channels**0.5
        self.reduce.weight.mul_((self.longest_reduce / norms).clamp(0.99, 1))
        if self.bank_size > 1:
            share = self.largest_logit / self._bounds().amax(dim=0).clamp(min=self.largest_logit)
            self.in_queries.mul_(share.unsqueeze(1))

    @torch.jit.unused
    @torch.no_grad()
    def settle_(self, own_softmax: bool = False) -> None:
        """Set the mean apart and drop the pass for the maximum if no exponential can overflow; slice.

        A runtime's own softmax is left whole, if that is faster there.
        """
        # Up to M such exponentials add up, and their reciprocal must be no subnormal number.
        most = -math.log(torch.finfo(torch.float32).tiny * self.bank_size)
        self.bounded = not own_softmax and self.bank_size > 1 and bool(self._bounds().max() < most)
        self.terms = self.bank_size - self.bounded
        super().settle_(own_softmax)

    def _bounds(self) -> Tensor:
        """Return how far, whatever the image, a pair's logits can lie from its first: (O * (M - 1), I/G)."""
        apart = self.out_queries.unsqueeze(1) * (self.keys[1:] - self.keys[:1])
        return apart.abs().flatten(0, 1) @ self.in_queries.abs().t() * self.key_dim**-0.5

    @torch.jit.unused
    def auto_lowering(self) -> str:
        """Return ``scaled`` for a depthwise convolution, else what the base returns."""
        return "scaled" if "scaled" in self.extra_lowerings else super().auto_lowering()
