"""The two ends of an artifact: normalised images in and logits out, or pixels in and probabilities out."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from export.base import ExportOptions, Predict
from zoo.errors import ZooError


class Ends:
    """Those of the model itself: images (N, C, H, W), float32, normalised; logits (N, classes)."""

    input = "float32 NCHW, normalised by mean and std"
    output = "logits"

    def around(self, network: nn.Module) -> nn.Module:
        """Return what is exported of ``network``."""
        return network

    def through(self, predict: Predict) -> Predict:
        """Return a function of what an artifact takes as one of normalised images."""
        return predict

    def given(self, images: np.ndarray) -> np.ndarray:
        """Return normalised images as an artifact takes them."""
        return images


@dataclass(frozen=True)
class PixelEnds(Ends):
    """Pixels (N, H, W, C), uint8, as decoders write them; probabilities (N, classes).

    Attributes:
        mean, std: that the model's inputs are normalised by, of each channel, for pixels from 0 to 1.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    input = "uint8 NHWC, from 0 to 255"
    output = "probabilities"

    def around(self, network: nn.Module) -> nn.Module:
        """Return ``network`` between a normalisation and a softmax."""
        return _OfPixels(network, self.mean, self.std).train(network.training)

    def through(self, predict: Predict) -> Predict:
        """Return a function of pixels as one of normalised images, which are rounded to pixels first."""
        return lambda images: predict(self.given(images))

    def given(self, images: np.ndarray) -> np.ndarray:
        """Return the pixels closest to normalised images."""
        unit = images.transpose(0, 2, 3, 1) * np.array(self.std) + np.array(self.mean)
        return np.ascontiguousarray((255 * unit).round().clip(0, 255).astype(np.uint8))


def ends(model: nn.Module, options: ExportOptions) -> Ends:
    """Return the ends that an artifact of ``model`` gets.

    Raises:
        ZooError: pixels are asked for, and the model's ``pretrained_cfg`` does not say how to normalise them.
    """
    if not options.preprocess:
        return Ends()
    assert options.input_size is not None
    channels = options.input_size[0]
    config = getattr(model, "pretrained_cfg", None) or {}
    mean, std = (tuple(config.get(name) or ()) for name in ("mean", "std"))
    if not len(mean) == len(std) == channels:
        raise ZooError(
            "the model's pretrained_cfg does not say how its inputs are normalised; give it mean and std of "
            f"{channels} channels, or export without preprocessing."
        )
    return PixelEnds(mean, std)


class _OfPixels(nn.Module):
    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.network = network
        scale = 1 / (255 * torch.tensor(std).view(-1, 1, 1))
        self.register_buffer("scale", scale)
        self.register_buffer("shift", -255 * torch.tensor(mean).view(-1, 1, 1) * scale)

    def forward(self, x: Tensor) -> Tensor:
        """Return the probabilities (N, classes) of x (N, H, W, C), uint8."""
        x = x.permute(0, 3, 1, 2).to(self.scale.dtype)
        return self.network(x * self.scale + self.shift).softmax(dim=-1)
