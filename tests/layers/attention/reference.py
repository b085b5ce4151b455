"""NumPy versions of what attention modules are made of, and modules whose every parameter matters."""

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def randomised(module: Module, seed: int = 0) -> Module:
    """Return the module in float64 and evaluation mode, every parameter and statistic off its start."""
    random = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=random))
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.normal_(generator=random)
                norm.running_var.uniform_(0.5, 2, generator=random)
    return module


def images(batch: int, channels: int, height: int, width: int, seed: int = 1) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, height, width, generator=random, dtype=torch.float64)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def mean(x: np.ndarray) -> np.ndarray:
    """Average over the map: (N, C, H, W) to (N, C, 1, 1)."""
    return x.mean(axis=(2, 3), keepdims=True)


def norm(x: np.ndarray, layer: nn.Module) -> np.ndarray:
    """Batch norm by its running statistics."""

    def column(tensor: Tensor) -> np.ndarray:
        return array(tensor)[:, None, None]

    x = (x - column(layer.running_mean)) / np.sqrt(column(layer.running_var) + layer.eps)
    return x * column(layer.weight) + column(layer.bias)


def conv(x: np.ndarray, layer: nn.Conv2d) -> np.ndarray:
    """Convolve x (N, C, H, W), adding one shifted product for each position of the kernel."""
    weight = array(layer.weight)
    (sh, sw), (ph, pw), (dh, dw) = layer.stride, layer.padding, layer.dilation
    kh, kw = weight.shape[2:]
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    height = (x.shape[2] - dh * (kh - 1) - 1) // sh + 1
    width = (x.shape[3] - dw * (kw - 1) - 1) // sw + 1
    x = x.reshape(len(x), layer.groups, -1, *x.shape[2:])
    weight = weight.reshape(layer.groups, -1, *weight.shape[1:])
    y = 0
    for r, c in np.ndindex(kh, kw):
        shifted = x[
            ..., r * dh : r * dh + (height - 1) * sh + 1 : sh, c * dw : c * dw + (width - 1) * sw + 1 : sw
        ]
        y = y + np.einsum("ngihw,goi->ngohw", shifted, weight[..., r, c])
    y = y.reshape(len(x), -1, height, width)
    return y if layer.bias is None else y + array(layer.bias)[:, None, None]
