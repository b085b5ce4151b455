"""The exact ways to compute a dynamic convolution from its factors.

Every function here computes

    y[n,o] = sum_{i,p} K[n,o,p,i] * shift_p(x[n,i]),    K[n,o,p,i] = sum_m mixing[n,o,m,i] * basis[n,m,p]

and they differ only in cost and in what a runtime accepts. Shapes, with G groups and P = kh * kw:

    x       (N, I, H, W)
    mixing  (N or 1, O, M, I/G)
    basis   (N or 1, M, P), or None for the identity (then M = P)
    kernels (N or 1, O, P, I/G)

The input channel comes last because it is the longest axis: a broadcast or a softmax over a trailing axis
of nine costs several times as much. Factors come as a list of slices along O: a slice that stays in a core's
cache is made and used there, where the whole would go to memory and come back. All functions are plain
tensor code that traces, scripts and exports.
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
        common: whether every layer has it; otherwise those that name it in their ``extra_lowerings``.
    """

    batch: Literal["any", "frozen", "one"]
    summary: str
    common: bool = True


LOWERINGS = {
    "grouped": Lowering("frozen", "the batch folded into the groups of one convolution"),
    "unfold": Lowering("any", "im2col, then one batched matrix product with the kernels"),
    "gather": Lowering("any", "as unfold, but gathering whole pixels, their channels side by side"),
    "rows": Lowering("any", "as unfold, but shifting the input by columns and the products by rows"),
    "contract": Lowering("any", "the basis applied first, then the mixing"),
    "single": Lowering("one", "an ordinary convolution with a computed weight"),
    "scaled": Lowering("any", "static convolutions whose input or output is scaled by term", common=False),
    "experts": Lowering("any", "every expert as a static convolution, weighted", common=False),
    "fold": Lowering("any", "one static convolution, made once", common=False),
}


def convolve(
    x: Tensor,
    mixings: list[Tensor],
    basis: Tensor | None,
    terms: int,
    sample_factor: str,
    geometry: Geometry,
    lowering: str,
) -> Tensor:
    """Convolve x (N, I, H, W) by one of the lowerings that need nothing but the factors.

    Args:
        x: not padded yet.
        mixings: slices of the mixing along O.
        basis: as at the head of this file.
        terms: M.
        sample_factor: which factor depends on the sample, as :class:`DynamicConv2d` says it.
        geometry: where to look.
        lowering: contract, unfold, gather, rows, grouped, single or fold.
    """
    if lowering == "contract":
        return contract(x, mixings, basis, terms, sample_factor, geometry)
    kernels = [compose(mixing, basis) for mixing in mixings]
    if lowering == "gather":
        return gathered(x, kernels, geometry)
    if lowering == "rows":
        return by_rows(x, kernels, geometry)
    if lowering == "grouped":
        return grouped(x, torch.cat(kernels, dim=1), geometry)
    if lowering == "single" or lowering == "fold":
        return shared(x, torch.cat(kernels, dim=1), geometry)
    torch._assert(lowering == "unfold", "the layer has no such lowering; zoo.layers.set_lowering says which")
    return unfold(x, kernels, geometry)


def compose(mixing: Tensor, basis: Tensor | None) -> Tensor:
    """Multiply the factors into kernels (N or 1, O, P, I/G)."""
    if basis is None:
        return mixing
    return basis.transpose(1, 2).unsqueeze(1) @ mixing


def to_conv_weight(kernels: Tensor, kernel_size: tuple[int, int]) -> Tensor:
    """Bring kernels (N, O, P, I/G) into the layout of ``nn.Conv2d``, (N, O, I/G, kh, kw)."""
    return kernels.transpose(2, 3).unflatten(3, (kernel_size[0], kernel_size[1]))


def static_conv(x: Tensor, weight: Tensor, geometry: Geometry, groups: int) -> Tensor:
    """Run ``F.conv2d`` where the geometry says, with ``groups`` of its own."""
    left, right, top, bottom = geometry.padding
    if left == right and top == bottom:
        return F.conv2d(x, weight, None, geometry.stride, (top, left), geometry.dilation, groups)
    x = F.pad(x, (left, right, top, bottom))
    return F.conv2d(x, weight, None, geometry.stride, (0, 0), geometry.dilation, groups)


def grouped(x: Tensor, kernels: Tensor, geometry: Geometry) -> Tensor:
    """Fold the batch into the groups of one convolution: ``groups = N * G``."""
    batch = x.shape[0]
    weight = to_conv_weight(kernels, geometry.kernel_size).expand(batch, -1, -1, -1, -1)
    folded = x.reshape(1, -1, x.shape[2], x.shape[3])
    y = static_conv(folded, weight.flatten(0, 1), geometry, batch * geometry.groups)
    return y.reshape(batch, kernels.shape[1], y.shape[2], y.shape[3])


def shared(x: Tensor, kernels: Tensor, geometry: Geometry) -> Tensor:
    """Run an ordinary convolution with a computed weight: kernels (1, O, P, I/G) serve every sample."""
    torch._assert(kernels.shape[0] == 1, "one convolution cannot hold the kernels of several samples")
    return static_conv(x, to_conv_weight(kernels, geometry.kernel_size)[0], geometry, geometry.groups)


def unfold(x: Tensor, kernels: list[Tensor], geometry: Geometry) -> Tensor:
    """Multiply the kernels with the im2col of x, one matrix product a sample and group."""
    return _products(im2col(x, geometry).flatten(4).flatten(2, 3), x, kernels, geometry)


def gathered(x: Tensor, kernels: list[Tensor], geometry: Geometry) -> Tensor:
    """Multiply the kernels with patches of x whose pixels were copied whole.

    With the channels last a pixel is one run of memory, and after a transpose of the map one operation copies
    all patches. The shifted copies of im2col are made of rows of the map, which are short where the channels
    are many.
    """
    # Runtimes let the product take its operand transposed; as a property it is priced as no copy.
    return _products(patches(x, geometry).mT, x, kernels, geometry)


def _products(columns: Tensor, x: Tensor, kernels: list[Tensor], geometry: Geometry) -> Tensor:
    """Multiply slices (N, O, P, I/G) with columns (N, G, P * I/G, pixels) of x: (N, O, height, width)."""
    products: list[Tensor] = []
    for part in kernels:
        rows = part.unflatten(1, (geometry.groups, -1)).flatten(3)
        products.append(rows @ columns)
    return torch.cat(products, dim=2).flatten(1, 2).unflatten(2, output_size(x, geometry))


def by_rows(x: Tensor, kernels: list[Tensor], geometry: Geometry) -> Tensor:
    """Copy x once for each column of the kernel, and shift the products, not the copies, by rows.

    That moves kw * I + kh * O planes through memory where im2col moves kh * kw * I; the rows of the padding
    are multiplied too, and with a stride those between.
    """
    _, width = output_size(x, geometry)
    rows, columns = geometry.kernel_size
    stride, dilation = geometry.stride, geometry.dilation
    x = F.pad(x, geometry.padding).unflatten(1, (geometry.groups, -1))
    padded = x.shape[3]
    height = padded - dilation[0] * (rows - 1)
    shifts: list[Tensor] = []
    for column in range(columns):
        left = column * dilation[1]
        shifts.append(x[:, :, :, :, left : left + (width - 1) * stride[1] + 1 : stride[1]])
    copies = torch.cat(shifts, dim=2).flatten(3)  # (N, G, kw * I/G, padded * width)
    outputs: list[Tensor] = []
    for part in kernels:
        # (N, O, kh * kw, I/G) -> (N, G, O/G * kh, kw * I/G): a line for each output and row of the kernel
        lines = part.unflatten(1, (geometry.groups, -1)).unflatten(3, (rows, columns))
        # Rows of the kernel and of the map in one axis: a slice of it is one long run of memory.
        products = (lines.flatten(4).flatten(2, 3) @ copies).unflatten(2, (-1, rows)).flatten(3)
        total = products[:, :, :, : height * width]
        for row in range(1, rows):
            first = row * (padded + dilation[0]) * width
            total = total + products[:, :, :, first : first + height * width]
        outputs.append(total)
    y = torch.cat(outputs, dim=2).flatten(1, 2).unflatten(2, (height, width))
    return y if stride[0] == 1 else y[:, :, :: stride[0]]


def im2col(x: Tensor, geometry: Geometry) -> Tensor:
    """Gather the P shifted copies of x: (N, I, H, W) -> (N, G, P, I/G, height, width)."""
    height, width = output_size(x, geometry)
    kernel_size, stride, dilation = geometry.kernel_size, geometry.stride, geometry.dilation
    x = F.pad(x, geometry.padding).unflatten(1, (geometry.groups, -1))
    shifts: list[Tensor] = []
    for row in range(kernel_size[0]):
        top = row * dilation[0]
        rows = x[:, :, :, top : top + (height - 1) * stride[0] + 1 : stride[0]]
        for column in range(kernel_size[1]):
            left = column * dilation[1]
            shifts.append(rows[:, :, :, :, left : left + (width - 1) * stride[1] + 1 : stride[1]])
    return torch.cat(shifts, dim=2).unflatten(2, (len(shifts), -1))


def patches(x: Tensor, geometry: Geometry) -> Tensor:
    """Gather what the kernel sees at each of its places: (N, I, H, W) -> (N, G, pixels, P * I/G)."""
    height, width = output_size(x, geometry)
    (rows, columns), stride, dilation = geometry.kernel_size, geometry.stride, geometry.dilation
    left, right, top, bottom = geometry.padding
    x = F.pad(x.permute(0, 2, 3, 1), (0, 0, left, right, top, bottom))
    lines = _places(height, stride[0], rows, dilation[0], x).unsqueeze(1).unsqueeze(3)
    index = lines * x.shape[2] + _places(width, stride[1], columns, dilation[1], x).unsqueeze(1)
    pixels = x.flatten(1, 2).index_select(1, index.flatten()).unflatten(1, (height * width, rows * columns))
    if geometry.groups == 1:
        return pixels.flatten(2).unsqueeze(1)
    return pixels.unflatten(3, (geometry.groups, -1)).permute(0, 3, 1, 2, 4).flatten(3)


def _places(count: int, stride: int, length: int, dilation: int, x: Tensor) -> Tensor:
    """Return where along one axis of the padded map a kernel looks: (count, length)."""
    # Not an arange, which a trace would tie to the device that it was made on.
    first = (x.new_ones((count,), dtype=torch.int64).cumsum(0) - 1) * stride
    places: list[Tensor] = []
    for step in range(length):
        places.append(first + step * dilation)
    return torch.stack(places, dim=1)


def contract(
    x: Tensor,
    mixings: list[Tensor],
    basis: Tensor | None,
    terms: int,
    sample_factor: str,
    geometry: Geometry,
) -> Tensor:
    """Apply the basis to x first, then mix the M filtered copies of each channel.

    A factor that does not depend on the sample becomes a static convolution: the basis a depthwise one,
    the mixing a 1x1 one. With M < P this needs M / P of a static convolution's multiplies.
    """
    height, width = output_size(x, geometry)
    if basis is not None and sample_factor == "mixing":
        filtered = filter_copies(repeated(x, terms, geometry), basis[0], terms, geometry)
    else:
        filtered = im2col(x, geometry)
        if basis is not None:
            filtered = (basis.unsqueeze(1) @ filtered.flatten(3)).unflatten(3, (-1, height, width))
    if sample_factor == "basis":
        return pointwise(filtered, torch.cat(mixings, dim=1)[0], geometry)
    return _products(filtered.flatten(4).flatten(2, 3), x, mixings, geometry)


def scaled(x: Tensor, scales: Tensor, weight: Tensor, terms: int, geometry: Geometry) -> Tensor:
    """Run a static convolution for each of T terms, with its own scale, and add them up.

    For kernels that are a sum of static ones whose share does not depend on the output channel:
    ``K[n,o,p,i] = sum_t scales[n,t,i] * weight[t,o,p,i]``.

    Args:
        x: (N, I, H, W).
        scales: (N or 1, T), or (N or 1, T * I), term by term, of a depthwise convolution with as many outputs
            as inputs: a scale may as well be applied to the output.
        weight: (T, O, P, I/G).
        terms: T.
        geometry: where to look.
    """
    weight = to_conv_weight(weight, geometry.kernel_size)
    maps = _maps(scales, terms)
    y = _scaled_term(x, maps[0], weight[0], geometry)
    for term in range(1, terms):
        # Term by term, because runtimes add to a convolution's output as they write it, and T copies in one
        # tensor would be moved through memory.
        y = y + _scaled_term(x, maps[term], weight[term], geometry)
    return y


def scaled_blocks(x: Tensor, scales: Tensor, weight: Tensor, blocks: int, geometry: Geometry) -> Tensor:
    """Convolve each of B blocks of input channels statically, scale its outputs, and add up.

    For kernels whose input channels share their scales by blocks: ``K[n,o,p,i] = scales[n,b(i),o] *
    weight[o,p,i]``.

    Args:
        x: (N, I, H, W).
        scales: (N or 1, B * O), block by block.
        weight: (O, P, I/G).
        blocks: B, which divides I/G; a block has as many channels of every group.
        geometry: where to look.
    """
    # Contiguous, or the outputs would take the layout of the transposed weight, and what flattens them after
    # a pooling would be exported as a gather.
    weight = to_conv_weight(weight.unsqueeze(0), geometry.kernel_size)[0].contiguous()
    width = geometry.per_group // blocks
    maps = _maps(scales, blocks)
    parts = _blocks_of(x, blocks, geometry)
    y = static_conv(parts[0], weight[:, :width], geometry, geometry.groups) * maps[0]
    for block in range(1, blocks):
        part = weight[:, block * width : (block + 1) * width]
        y = y + static_conv(parts[block], part, geometry, geometry.groups) * maps[block]
    return y


def scaled_basis(
    x: Tensor, scales: Tensor, mixing: Tensor, basis: Tensor, terms: int, geometry: Geometry
) -> Tensor:
    """Filter x with each of M basis kernels, scale, mix, and add up.

    For a basis that the sample only scales: ``K[n,o,p,i] = sum_m scales[n,m] * mixing[o,m,i] * basis[m,p]``,
    so that all weights are static.

    Args:
        x: (N, I, H, W).
        scales: (N or 1, M).
        mixing: (O, M, I/G).
        basis: (M, P).
        terms: M.
        geometry: where to look.
    """
    if geometry.per_group == 1:
        weight = mixing.permute(1, 0, 2).unsqueeze(2) * basis.unsqueeze(1).unsqueeze(3)
        return scaled(x, scales, weight, terms, geometry)
    maps = _maps(scales, terms)
    y = _scaled_term_of_basis(x, maps[0], mixing[:, 0], basis[0], geometry)
    for term in range(1, terms):
        y = y + _scaled_term_of_basis(x, maps[term], mixing[:, term], basis[term], geometry)
    return y


def _maps(scales: Tensor, terms: int) -> list[Tensor]:
    """Cut scales (N, T * C) into T maps (N, C, 1, 1), all given their shape at once: each operation costs."""
    if terms == 1:
        return [scales.unsqueeze(2).unsqueeze(3)]
    # A tuple, which TorchScript takes for a list; FX could not copy it into one.
    return scales.unsqueeze(2).unsqueeze(3).chunk(terms, dim=1)  # type: ignore[return-value]


def _blocks_of(x: Tensor, blocks: int, geometry: Geometry) -> list[Tensor]:
    """Cut x (N, I, H, W) into B parts, each with a block of every group's channels."""
    if geometry.groups == 1 or blocks == 1:
        return x.chunk(blocks, dim=1)  # type: ignore[return-value]
    cut = x.unflatten(1, (geometry.groups, -1)).chunk(blocks, dim=2)
    parts: list[Tensor] = []
    for block in range(blocks):
        parts.append(cut[block].flatten(1, 2))
    return parts


def _scaled_term(x: Tensor, scale: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """Convolve x, scaled by (N or 1, I or 1, 1, 1), with a static weight (O, I/G, kh, kw).

    Scaled first, so that a runtime can fuse what is added to the convolution; but with a stride the output is
    the smaller map.
    """
    if geometry.stride != (1, 1):
        return static_conv(x, weight, geometry, geometry.groups) * scale
    return static_conv(x * scale, weight, geometry, geometry.groups)


def _scaled_term_of_basis(
    x: Tensor, scale: Tensor, mixing: Tensor, basis: Tensor, geometry: Geometry
) -> Tensor:
    """Filter every channel with a basis kernel (P), scale (N or 1, 1, 1, 1), and mix statically (O, I/G)."""
    channels = geometry.groups * geometry.per_group
    weight = basis.unflatten(0, (1, 1, geometry.kernel_size[0], geometry.kernel_size[1]))
    depthwise = Geometry(
        geometry.kernel_size, geometry.stride, geometry.dilation, channels, geometry.padding, 1
    )
    filtered = _scaled_term(x, scale, weight.expand(channels, -1, -1, -1), depthwise)
    weight = mixing.unsqueeze(2).unsqueeze(3)
    return F.conv2d(filtered, weight, None, (1, 1), (0, 0), (1, 1), geometry.groups)


def one_kernel(x: Tensor, kernel: Tensor, outputs: int, geometry: Geometry) -> Tensor:
    """Convolve with one static kernel (P) that all pairs of channels share: (N, O, height, width).

    The channels of a group are added up first, so a group takes the work of a single channel.
    """
    groups = geometry.groups
    if geometry.per_group > 1:
        # A product with ones: at batch 1 onnxruntime takes up to twenty times as long to sum over an axis
        # that is not the last.
        parts = x.unflatten(1, (groups, -1)).flatten(3)
        sums = x.new_ones((1, geometry.per_group)) @ parts
        x = sums.flatten(1, 2).unflatten(2, (x.shape[2], x.shape[3]))
    weight = kernel.unflatten(0, (1, 1, geometry.kernel_size[0], geometry.kernel_size[1]))
    y = static_conv(x, weight.expand(groups, -1, -1, -1), geometry, groups)
    if groups == 1 or groups == outputs:
        return y  # broadcast over the outputs, or one for each
    return y.repeat_interleave(outputs // groups, dim=1)


def repeated(x: Tensor, terms: int, geometry: Geometry) -> Tensor:
    """Copy the channels of every group M times: (N, G * M * I/G, H, W)."""
    # onnxruntime keeps its blocked layout through a Concat of whole tensors, but not through an Expand.
    if geometry.groups == 1:
        return torch.cat([x] * terms, dim=1)
    return torch.cat([x.unflatten(1, (geometry.groups, -1))] * terms, dim=2).flatten(1, 2)


def filter_copies(copies: Tensor, basis: Tensor, terms: int, geometry: Geometry) -> Tensor:
    """Filter the m-th copy of every channel with the m-th basis kernel.

    Copies rather than M outputs of one channel, so that the channel comes last, as the mixing wants it,
    without a transpose of the large output.

    Args:
        copies: (N, G * M * I/G, H, W).
        basis: (M, P).
        terms: M.
        geometry: where to look.

    Returns:
        (N, G, M, I/G, height, width).
    """
    groups, per_group = geometry.groups, geometry.per_group
    weight = basis.unflatten(1, (1, geometry.kernel_size[0], geometry.kernel_size[1]))
    weight = weight.repeat_interleave(per_group, dim=0).repeat(groups, 1, 1, 1)
    y = static_conv(copies, weight, geometry, groups * terms * per_group)
    return y.unflatten(1, (groups, terms, per_group))


def pointwise(filtered: Tensor, mixing: Tensor, geometry: Geometry) -> Tensor:
    """Mix filtered (N, G, M, I/G, H, W) with a static mixing (O, M, I/G): a 1x1 convolution."""
    weight = mixing.flatten(1).unsqueeze(2).unsqueeze(3)
    return F.conv2d(filtered.flatten(1, 3), weight, None, (1, 1), (0, 0), (1, 1), geometry.groups)


def output_size(x: Tensor, geometry: Geometry) -> tuple[int, int]:
    """Return the height and width of the convolution's output for x before padding."""
    left, right, top, bottom = geometry.padding
    kernel_size, stride, dilation = geometry.kernel_size, geometry.stride, geometry.dilation
    height = (x.shape[2] + top + bottom - dilation[0] * (kernel_size[0] - 1) - 1) // stride[0] + 1
    width = (x.shape[3] + left + right - dilation[1] * (kernel_size[1] - 1) - 1) // stride[1] + 1
    return height, width
