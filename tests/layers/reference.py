"""The families' maths as plain loops over NumPy arrays, independent of the layers' code."""

import math

import numpy as np
from torch import Tensor

from zoo.layers import (
    BlockWeightedConv2d,
    CondConv2d,
    ConvexConv2d,
    DotProductConv2d,
    DynamicConv2d,
    DynamicConvolution2d,
    ExpertsConv2d,
    FCGeneratedConv2d,
    KernelWeightedConv2d,
)


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def linear(weight: np.ndarray, x: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    y = np.array([sum(row[j] * x[j] for j in range(len(x))) for row in weight])
    return y if bias is None else y + bias


def softmax(values: list[float] | np.ndarray) -> list[float]:
    exps = [math.exp(value - max(values)) for value in values]
    return [value / sum(exps) for value in exps]


def kw_kernel(layer: KernelWeightedConv2d, g: np.ndarray, o: int, i: int) -> np.ndarray:
    reduced = linear(array(layer.reduce.weight), g, array(layer.reduce.bias))
    gate = sigmoid(sum(a * b for a, b in zip(array(layer.vectors)[o, i], reduced, strict=True)))
    return gate * array(layer.weight)[o, :, i]


def kwb_kernel(layer: BlockWeightedConv2d, g: np.ndarray, o: int, i: int) -> np.ndarray:
    reduced = linear(array(layer.reduce.weight), g, array(layer.reduce.bias))
    per_group, blocks = layer.in_channels // layer.groups, layer.vectors.shape[1]
    block = next(b for b in range(blocks) if i < (b + 1) * per_group // blocks)
    gate = sigmoid(sum(a * b for a, b in zip(array(layer.vectors)[o, block], reduced, strict=True)))
    return gate * array(layer.weight)[o, :, i]


def fgk_kernel(layer: FCGeneratedConv2d, g: np.ndarray, o: int, i: int) -> np.ndarray:
    widened = linear(array(layer.widen.weight), array(layer.embedding)[o, :, i])
    gates = [sigmoid(value) for value in linear(array(layer.gate.weight), g, array(layer.gate.bias))]
    return linear(array(layer.project.weight), widened * np.array(gates))


def dpk_kernel(layer: DotProductConv2d, g: np.ndarray, o: int, i: int) -> np.ndarray:
    reduced = linear(array(layer.reduce.weight), g, array(layer.reduce.bias))
    query = array(layer.in_queries)[i] * array(layer.out_queries)[o] * np.tanh(reduced)
    logits = linear(array(layer.keys), query) / math.sqrt(layer.key_dim)
    return sum(weight * row for weight, row in zip(softmax(logits), array(layer.bank), strict=True))


def experts_kernel(layer: ExpertsConv2d, routing: list[float], o: int, i: int) -> np.ndarray:
    return sum(r * expert[o, :, i] for r, expert in zip(routing, array(layer.experts), strict=True))


def condconv_kernel(layer: CondConv2d, g: np.ndarray, o: int, i: int) -> np.ndarray:
    logits = linear(array(layer.route.weight), g, array(layer.route.bias))
    return experts_kernel(layer, [sigmoid(value) for value in logits], o, i)


def dyconv_kernel(layer: DynamicConvolution2d, g: np.ndarray, o: int, i: int) -> np.ndarray:
    squeezed = linear(array(layer.squeeze.weight), g, array(layer.squeeze.bias))
    hidden = np.array([max(value, 0) for value in squeezed])
    logits = linear(array(layer.route.weight), hidden, array(layer.route.bias))
    return experts_kernel(layer, softmax(logits / layer.temperature), o, i)


def convex_kernel(layer: ConvexConv2d, g: np.ndarray, o: int, i: int) -> np.ndarray:
    return experts_kernel(layer, softmax(array(layer.logits)), o, i)


KERNELS = {
    KernelWeightedConv2d: kw_kernel,
    BlockWeightedConv2d: kwb_kernel,
    FCGeneratedConv2d: fgk_kernel,
    DotProductConv2d: dpk_kernel,
    CondConv2d: condconv_kernel,
    DynamicConvolution2d: dyconv_kernel,
    ConvexConv2d: convex_kernel,
}


def kernels(layer: DynamicConv2d, x: np.ndarray) -> np.ndarray:
    """Return the kernels (N, O, I/G, kh, kw) of every sample of x (N, I, H, W)."""
    per_group = layer.in_channels // layer.groups
    out = np.zeros((len(x), layer.out_channels, per_group, *layer.kernel_size))
    for n in range(len(x)):
        g = np.array([x[n, channel].sum() / x[n, channel].size for channel in range(layer.in_channels)])
        for o in range(layer.out_channels):
            for i in range(per_group):
                out[n, o, i] = KERNELS[type(layer)](layer, g, o, i).reshape(layer.kernel_size)
    return out


def convolve(layer: DynamicConv2d, x: np.ndarray, padding: tuple[int, ...]) -> np.ndarray:
    """Convolve each sample with its own kernels; padding is (left, right, top, bottom) in pixels."""
    kernel = kernels(layer, x)
    left, right, top, bottom = padding
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    (kh, kw), (sh, sw), (dh, dw) = layer.kernel_size, layer.stride, layer.dilation
    height = (x.shape[2] - dh * (kh - 1) - 1) // sh + 1
    width = (x.shape[3] - dw * (kw - 1) - 1) // sw + 1
    per_group_in, per_group_out = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    y = np.zeros((len(x), layer.out_channels, height, width))
    if layer.bias is not None:
        y += array(layer.bias)[None, :, None, None]
    for n, o, row, column in np.ndindex(y.shape):
        first = o // per_group_out * per_group_in
        for i, r, c in np.ndindex(per_group_in, kh, kw):
            y[n, o, row, column] += (
                kernel[n, o, i, r, c] * x[n, first + i, row * sh + r * dh, column * sw + c * dw]
            )
    return y
