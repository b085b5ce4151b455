"""The exact ways to compute a dynamic convolution from its factors.

Every function here computes

    y[n,o] = sum_{i,p} K[n,o,p,i] * shift_p(x[n,i]),    K[n,o,p,i] = sum_m mixing[n,o,m,i] * basis[n,m,p]

and they differ only in cost and in what a runtime accepts. Shapes, with G groups and P = kh * kw:

    x       (N, I, H, W), already padded
    mixing  (N or 1, O, M, I/G)
    basis   (N or 1, M, P), or None for the identity (then M = P)
    kernels (N or 1, O, P, I/G)

The input channel comes last because it is the longest axis: a broadcast or a softmax over a trailing axis
of nine costs several times as much. All functions are plain tensor code that traces, scripts and exports.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.layers.geometry import Geometry


@dataclass(frozen=True)
class Lowering:
    """What a lowering can do once it is exported.

    Args:
        batch: ``"any"`` exports with a dynamic batch axis, ``"frozen"`` only with the batch it was traced at,
            ``"one"`` only with batch 1.
        summary: one line for help texts.
        common: whether every family has it; otherwise those that name it in their ``extra_lowerings``.
    """

    batch: Literal["any", "frozen", "one"]
    summary: str
    common: bool = True


LOWERINGS = {
    "grouped": Lowering("frozen", "the batch folded into the groups of one convolution"),
    "unfold": Lowering("any", "im2col, then one batched matrix product with the kernels"),
    "contract": Lowering("any", "the basis applied first, then the mixing"),
    "single": Lowering("one", "an ordinary convolution with a computed weight"),
    "experts": Lowering("any", "all experts as one static convolution, outputs weighted", common=False),
    "fold": Lowering("any", "one static convolution, made once", common=False),
}


def convolve(
    x: Tensor,
    mixing: Tensor,
    basis: Tensor | None,
    sample_factor: str,
    geometry: Geometry,
    lowering: str,
) -> Tensor:
    """Convolve x with the kernels that the factors make, by one of the lowerings that need no more."""
    if lowering == "contract":
        return contract(x, mixing, basis, sample_factor, geometry)
    kernels = compose(mixing, basis)
    if lowering == "single" or lowering == "fold":
        return shared(x, kernels, geometry)
    if lowering == "grouped":
        return grouped(x, kernels, geometry)
    return unfold(x, kernels, geometry)


def compose(mixing: Tensor, basis: Tensor | None) -> Tensor:
    """Multiply the factors into kernels (N or 1, O, P, I/G)."""
    if basis is None:
        return mixing
    return basis.transpose(1, 2).unsqueeze(1) @ mixing


def to_conv_weight(kernels: Tensor, kernel_size: tuple[int, int]) -> Tensor:
    """Bring kernels (N, O, P, I/G) into the layout of ``nn.Conv2d``, (N, O, I/G, kh, kw)."""
    return kernels.transpose(2, 3).unflatten(3, (kernel_size[0], kernel_size[1]))


def im2col(x: Tensor, geometry: Geometry) -> Tensor:
    """Gather the P shifted copies of x: (N, I, H, W) -> (N, G, P, I/G, Ho, Wo), made of slices alone."""
    kernel_size, stride, dilation, groups = geometry
    height = (x.shape[2] - dilation[0] * (kernel_size[0] - 1) - 1) // stride[0] + 1
    width = (x.shape[3] - dilation[1] * (kernel_size[1] - 1) - 1) // stride[1] + 1
    x = x.unflatten(1, (groups, -1))
    shifts: list[Tensor] = []
    for row in range(kernel_size[0]):
        top = row * dilation[0]
        rows = x[:, :, :, top : top + (height - 1) * stride[0] + 1 : stride[0]]
        for column in range(kernel_size[1]):
            left = column * dilation[1]
            shifts.append(rows[:, :, :, :, left : left + (width - 1) * stride[1] + 1 : stride[1]])
    return torch.stack(shifts, dim=2)


def grouped(
    x: Tensor,
    kernels: Tensor,
    geometry: Geometry,
) -> Tensor:
    """Fold the batch into the groups of one convolution: ``groups = N * G``."""
    kernel_size, stride, dilation, groups = geometry
    batch = x.shape[0]
    weight = to_conv_weight(kernels, kernel_size).expand(batch, -1, -1, -1, -1)
    y = F.conv2d(
        x.reshape(1, -1, x.shape[2], x.shape[3]),
        weight.flatten(0, 1),
        None,
        stride,
        (0, 0),
        dilation,
        batch * groups,
    )
    return y.reshape(batch, kernels.shape[1], y.shape[2], y.shape[3])


def shared(
    x: Tensor,
    kernels: Tensor,
    geometry: Geometry,
) -> Tensor:
    """Run an ordinary convolution with a computed weight: kernels (1, O, P, I/G) serve every sample."""
    kernel_size, stride, dilation, groups = geometry
    weight = to_conv_weight(kernels, kernel_size)[0]
    return F.conv2d(x, weight, None, stride, (0, 0), dilation, groups)


def unfold(
    x: Tensor,
    kernels: Tensor,
    geometry: Geometry,
) -> Tensor:
    """Multiply the kernels with the im2col of x, one matrix product a sample and group."""
    columns = im2col(x, geometry)
    rows = kernels.unflatten(1, (geometry.groups, -1)).flatten(3)
    y = rows @ columns.flatten(4).flatten(2, 3)
    return y.flatten(1, 2).unflatten(2, (columns.shape[4], columns.shape[5]))


def contract(
    x: Tensor,
    mixing: Tensor,
    basis: Tensor | None,
    sample_factor: str,
    geometry: Geometry,
) -> Tensor:
    """Apply the basis to x first, then mix the M filtered copies of each channel.

    A factor that does not depend on the sample becomes a static convolution: the basis a depthwise one,
    the mixing a 1x1 one. With M < P this needs M / P of a static convolution's multiplies.
    """
    groups = geometry.groups
    if basis is None:
        filtered = im2col(x, geometry)
    elif sample_factor == "mixing":
        filtered = _filter_static(x, basis[0], geometry)
    else:
        columns = im2col(x, geometry)
        filtered = basis.unsqueeze(1) @ columns.flatten(3)
        filtered = filtered.unflatten(3, (columns.shape[3], columns.shape[4], columns.shape[5]))
    # filtered: (N, G, M, I/G, Ho, Wo)
    if sample_factor == "basis":
        weight = mixing[0].flatten(1).unsqueeze(2).unsqueeze(3)
        return F.conv2d(filtered.flatten(1, 3), weight, None, (1, 1), (0, 0), (1, 1), groups)
    rows = mixing.unflatten(1, (groups, -1)).flatten(3)
    y = rows @ filtered.flatten(4).flatten(2, 3)
    return y.flatten(1, 2).unflatten(2, (filtered.shape[4], filtered.shape[5]))


def experts(x: Tensor, routing: Tensor, bank: Tensor, geometry: Geometry) -> Tensor:
    """Run a bank of experts (E, O, P, I/G) as one static convolution and weigh its outputs by routing.

    The routing is (N or 1, E). This is E times a static convolution's multiplies, all with constant weights.
    """
    kernel_size, stride, dilation, groups = geometry
    # A grouped convolution's outputs come group by group: (E, G, O/G, ...) -> (G, E, O/G, ...).
    weight = bank.unflatten(1, (groups, -1)).transpose(0, 1).flatten(0, 2)
    weight = weight.transpose(1, 2).unflatten(2, (kernel_size[0], kernel_size[1]))
    each = F.conv2d(x, weight, None, stride, (0, 0), dilation, groups)
    height, width = each.shape[2], each.shape[3]
    each = each.unflatten(1, (groups, bank.shape[0], bank.shape[1] // groups)).flatten(3)
    y = routing.unsqueeze(1).unsqueeze(1) @ each
    return y.flatten(1, 2).unflatten(2, (bank.shape[1] // groups, height, width)).flatten(1, 2)


def _filter_static(
    x: Tensor,
    basis: Tensor,
    geometry: Geometry,
) -> Tensor:
    """Run the M filters of a batch-free basis (M, P) over every channel: (N, G, M, I/G, Ho, Wo).

    x is repeated M times so that the filtered copies come out with the channel last, as the mixing wants
    them; a depthwise convolution with M outputs a channel would need a transpose of its large output.
    """
    kernel_size, stride, dilation, groups = geometry
    terms = basis.shape[0]
    channels = x.shape[1]
    repeated = x.unflatten(1, (groups, 1, -1)).expand(-1, -1, terms, -1, -1, -1).flatten(1, 3)
    weight = basis.unflatten(1, (1, kernel_size[0], kernel_size[1]))
    weight = weight.repeat_interleave(channels // groups, dim=0).repeat(groups, 1, 1, 1)
    y = F.conv2d(repeated, weight, None, stride, (0, 0), dilation, terms * channels)
    return y.unflatten(1, (groups, terms, -1))
